"""The same settings are the same images, in any process, order and loader; other settings are other sets."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

from d3hr_datasets import D3HRDataset, DecodeConfig, GroupSamplingConfig
from tests.support.sets import IPC, image_digests, tiny_set
from tests.support.workers import item_digests

REPOSITORY = Path(__file__).resolve().parents[2]


def test_pixels_are_the_same_in_a_new_process_in_any_order(filled: D3HRDataset, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.support.workers",
        str(filled.artifact.folder),
        str(tmp_path / "root"),
        str(IPC),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "17"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == item_digests(filled, list(range(len(filled))))


def test_another_root_has_the_same_pixels(filled: D3HRDataset, tmp_path: Path) -> None:
    torch.manual_seed(99)
    assert image_digests(tiny_set(filled.artifact.folder, tmp_path)) == image_digests(filled)


def test_moved_artifact_has_the_same_pixels_and_cache(filled: D3HRDataset, artifact_copy: Path) -> None:
    assert tiny_set(artifact_copy, Path(filled.root)).image_folder == filled.image_folder


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"sampling": GroupSamplingConfig(method="search", num_candidates=3)},
        {"decode": DecodeConfig(timestep=400, num_inference_steps=10, guidance_scale=5.0)},
        {"decode": DecodeConfig(timestep=200, num_inference_steps=10, guidance_scale=2.0)},
        {"decode": DecodeConfig(400, 10, 2.0, reference_off_by_one=True)},
        {"torch_dtype": torch.bfloat16},
    ],
    ids=str,
)
def test_other_settings_give_other_images_beside_them(
    options: dict[str, Any], filled: D3HRDataset, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(filled.root, tmp_path / "root"))
    other = tiny_set(filled.artifact.folder, root, **options)
    assert other.image_folder.name != filled.image_folder.name
    assert not set(image_digests(other)) & set(image_digests(filled))


def test_other_ipc_is_another_set(filled: D3HRDataset, tmp_path: Path) -> None:
    root = Path(shutil.copytree(filled.root, tmp_path / "root"))
    other = tiny_set(filled.artifact.folder, root, ipc=1)
    assert len(other) == 3 and other.targets == [0, 1, 2]
    assert not set(image_digests(other)) & set(image_digests(filled))


def test_seed_of_the_sampling_is_the_seed_of_the_data_set(filled: D3HRDataset) -> None:
    sampling = GroupSamplingConfig(seed=5)
    dataset = tiny_set(filled.artifact.folder, Path(filled.root), sampling=sampling)
    assert dataset.sampling.seed == 0 and dataset.image_folder == filled.image_folder


def test_equal_settings_are_one_set(filled: D3HRDataset) -> None:
    decode = DecodeConfig(timestep=400, num_inference_steps=10, guidance_scale=2)
    assert decode == filled.decode
    assert (
        tiny_set(filled.artifact.folder, Path(filled.root), decode=decode).image_folder == filled.image_folder
    )


def test_pickle_keeps_the_data_set_but_not_the_model(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = tiny_set(tiny_artifact, tmp_path, transform=pil_to_tensor)
    first = dataset[0][0]
    data = pickle.dumps(dataset)
    assert len(data) < 20_000
    again = pickle.loads(data)
    assert torch.equal(again[0][0], first)
    assert again.targets == dataset.targets and again.image_folder == dataset.image_folder
    again[8]  # not cached: the copy loads the model
    assert again.cache.is_complete(2)


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork")])
def test_loaders_generate(workers: int, context: str | None, filled: D3HRDataset, tmp_path: Path) -> None:
    _check_loader(tiny_set(filled.artifact.folder, tmp_path), workers, context, filled)


@pytest.mark.parametrize(("workers", "context"), [(2, "fork"), (2, "spawn")])
def test_loaders_read_the_cache(workers: int, context: str | None, filled: D3HRDataset) -> None:
    _check_loader(tiny_set(filled.artifact.folder, Path(filled.root)), workers, context, filled)


def _check_loader(dataset: D3HRDataset, workers: int, context: str | None, filled: D3HRDataset) -> None:
    """See that a loader gives the images of `filled`, in its order."""
    dataset.transform = pil_to_tensor
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=2,
        num_workers=workers,
        multiprocessing_context=context,
        timeout=600 if workers else 0,
    )
    images, labels = zip(*loader, strict=True)
    assert torch.cat(labels).tolist() == filled.targets
    assert torch.equal(torch.cat(images), torch.stack([pil_to_tensor(filled[i][0]) for i in range(9)]))


def test_global_generators_stay_where_they_are(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load: Any = AutoencoderKL.from_pretrained

    def draw_and_load(*args: Any, **kwargs: Any) -> Any:
        torch.rand(3)  # as it does where weights are initialised before they are read
        return load(*args, **kwargs)

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", draw_and_load)
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    dataset = tiny_set(tiny_artifact, tmp_path)
    dataset[0]
    dataset.materialize(progress=False)
    after = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
