""""""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder, VisionDataset
from torchvision.transforms.functional import pil_to_tensor

from d3hr_datasets import Artifact, D3HRDataset, GroupSamplingConfig, sample_group
from tests.support.sets import IPC, image_digests, tiny_set
from tests.support.tiny import CLASSES


def _no_model(*args: object, **kwargs: object) -> None:
    raise AssertionError("the model was loaded")


def test_items_are_grey_images_and_int_labels(filled: D3HRDataset) -> None:
    assert isinstance(filled, VisionDataset) and len(filled) == 9
    for index in range(9):
        image, label = filled[index]
        assert isinstance(image, Image.Image) and image.mode == "L" and image.size == (14, 14)
        assert type(label) is int and label == filled.targets[index]


def test_attributes_are_those_of_torchvision(filled: D3HRDataset) -> None:
    assert filled.targets == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert filled.classes == list(CLASSES)
    assert filled.class_to_idx == {"ant": 0, "bee/wasp": 1, "cat": 2}
    assert filled.class_labels.tolist() == [0, 1, 2] and filled.class_labels.dtype == torch.int64
    assert filled.transform is None and filled.target_transform is None


def test_images_of_a_group_and_of_classes_differ(filled: D3HRDataset) -> None:
    assert len(set(image_digests(filled))) == 9
    for index in range(9):
        assert np.asarray(filled[index][0]).std() > 1


def test_images_are_the_decoded_latents(filled: D3HRDataset) -> None:
    model = filled.model()
    labels = torch.full((IPC,), 1)
    images = model.decode(model.denoise(filled.sample_latents(1), labels, filled.decode))
    inside = ((images[:, 0, 1:15, 1:15] + 1) * 127.5).round().to(torch.uint8)
    for position in range(IPC):
        assert np.array_equal(np.asarray(filled[IPC + position][0]), inside[position].numpy())


def test_latents_are_a_group_of_the_class_gaussian(filled: D3HRDataset) -> None:
    gaussian = Artifact.load(filled.artifact.folder).gaussians(400)
    expected = sample_group(gaussian.mean[2], gaussian.variance[2], IPC, 2, GroupSamplingConfig(seed=0))
    assert torch.equal(filled.sample_latents(2), expected)


def test_construction_reads_no_model(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d3hr_datasets.dataset.images_on_demand.load_model", _no_model)
    dataset = tiny_set(tiny_artifact, tmp_path / "root")
    assert len(dataset) == 9 and repr(dataset)
    assert not (tmp_path / "root").exists()
    with pytest.raises(AssertionError, match="loaded"):
        dataset[0]


def test_only_the_class_asked_for_is_generated(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = tiny_set(tiny_artifact, tmp_path)
    dataset[4]
    assert sorted(path.name for path in dataset.image_folder.iterdir()) == ["001-bee_wasp", "set.json"]
    assert len(list(dataset.image_folder.rglob("*.png"))) == IPC


def test_cached_images_need_no_model(filled: D3HRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3hr_datasets.dataset.images_on_demand.load_model", _no_model)
    again = tiny_set(filled.artifact.folder, Path(filled.root))
    assert image_digests(again) == image_digests(filled)
    again.materialize(progress=False)


def test_transforms_apply_to_what_is_read(filled: D3HRDataset) -> None:
    dataset = tiny_set(
        filled.artifact.folder,
        Path(filled.root),
        transform=pil_to_tensor,
        target_transform=lambda label: label + 10,
    )
    image, target = dataset[4]
    assert torch.equal(image, pil_to_tensor(filled[4][0])) and target == 11


def test_transforms_may_be_assigned_later(filled: D3HRDataset) -> None:
    dataset = tiny_set(filled.artifact.folder, Path(filled.root))
    assert isinstance(dataset[4][0], Image.Image)
    dataset.transform = pil_to_tensor
    dataset.target_transform = str
    image, target = dataset[4]
    assert torch.equal(image, pil_to_tensor(filled[4][0])) and target == "1"
    dataset.transform = None
    assert isinstance(dataset[4][0], Image.Image)


@pytest.mark.parametrize("index", [-10, 9, 100])
def test_indices_out_of_range_are_index_errors(index: int, filled: D3HRDataset) -> None:
    with pytest.raises(IndexError, match=rf"index {index} .*9 images"):
        filled[index]


def test_iteration_ends(filled: D3HRDataset) -> None:
    assert [label for _, label in filled] == filled.targets  # type: ignore[attr-defined]


def test_numpy_and_torch_indices_work(filled: D3HRDataset) -> None:
    expected = filled[4][0].tobytes()
    indices: list[Any] = [np.int64(4), torch.tensor(4)]
    for index in indices:
        image, label = filled[index]
        assert image.tobytes() == expected and type(label) is int


def test_kept_classes_keep_their_images(filled: D3HRDataset, tmp_path: Path) -> None:
    subset = tiny_set(filled.artifact.folder, tmp_path, classes=["cat", "ant"])
    assert subset.classes == ["cat", "ant"] and subset.class_to_idx == {"cat": 0, "ant": 1}
    assert subset.class_labels.tolist() == [2, 0]
    assert len(subset) == 6 and subset.targets == [0, 0, 0, 1, 1, 1]
    digests = image_digests(filled)
    assert image_digests(subset) == digests[6:9] + digests[0:3]
    assert [label for _, label in subset] == subset.targets  # type: ignore[attr-defined]


def test_materialized_set_is_an_image_folder(filled: D3HRDataset, tmp_path: Path) -> None:
    dataset = tiny_set(filled.artifact.folder, tmp_path)
    assert dataset.materialize(progress=False) == dataset.image_folder
    folder = ImageFolder(str(dataset.image_folder))
    assert len(folder) == len(dataset) == 9
    assert folder.targets == dataset.targets
    for index in range(9):
        assert folder[index][0].convert("L").tobytes() == filled[index][0].tobytes()


def test_materializing_goes_on_where_it_was(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = tiny_set(tiny_artifact, tmp_path)
    dataset[4]
    before = {path: path.stat().st_mtime_ns for path in dataset.image_folder.rglob("*.png")}
    dataset.materialize(progress=False)
    assert len(before) == IPC and len(list(dataset.image_folder.rglob("*.png"))) == 9
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_progress_goes_to_stderr_and_only_if_asked_for(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_set(tiny_artifact, tmp_path, ipc=1).materialize(progress=False)
    assert capsys.readouterr() == ("", "")
    dataset = tiny_set(tiny_artifact, tmp_path, ipc=1, seed=1)
    dataset.materialize()
    out, err = capsys.readouterr()
    assert out == "" and "3/3" in err
    dataset.materialize()
    assert capsys.readouterr() == ("", "")


def test_default_root_is_the_assets_cache_of_hugging_face(tiny_artifact: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, ipc=1, device="cpu")
    assert dataset.image_folder.is_relative_to(os.environ["HF_ASSETS_CACHE"])


def test_root_may_start_with_the_home_folder(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    dataset = D3HRDataset(tiny_artifact, "~/root", ipc=1, device="cpu")
    assert dataset.image_folder.parent == tmp_path / "root"


def test_repr_says_what_the_set_is(filled: D3HRDataset) -> None:
    text = repr(filled)
    for part in (
        "Number of datapoints: 9",
        "tiny",
        filled.artifact.fingerprint,
        "3, seed 0",
        "moment_matched",
    ):
        assert part in text


def test_folder_name_says_what_the_set_is(filled: D3HRDataset) -> None:
    assert filled.image_folder.name == f"tiny-ipc3-seed0-{filled.fingerprint}"


def test_data_set_is_a_dataset_of_torch(filled: D3HRDataset) -> None:
    assert isinstance(filled, Dataset)
