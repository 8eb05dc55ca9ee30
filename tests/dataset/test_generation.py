"""Materialising: batches across classes, shares of processes, nested sets, what is kept in memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from d3hr_datasets import Artifact, D3HRDataset, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ArtifactFormatError, CacheError, CacheMissError, ConfigError
from d3hr_datasets.processes import generation_device
from d3hr_datasets.sampling.gaussian_sampling import sample_group
from d3hr_datasets.sampling.nested_sampling import NESTED_BLOCK, sample_nested
from tests.support.tampering import change_info, flip_byte


def _dataset(artifact: Path, root: Path, ipc: int = 2, **options: Any) -> D3HRDataset:
    return D3HRDataset(artifact, root, ipc, **{"device": "cpu", **options})


def _pixels(dataset: D3HRDataset) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(dataset[index][0]).astype(int) for index in range(len(dataset))])


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return a list that gets the class labels of every call that denoises."""
    seen: list[list[int]] = []
    denoise = LatentDiffusion.denoise

    def spy(self: Any, latents: Any, labels: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(labels.tolist())
        return denoise(self, latents, labels, *args, **kwargs)

    monkeypatch.setattr(LatentDiffusion, "denoise", spy)
    return seen


def test_classes_are_batched_together(tiny_artifact: Path, tmp_path: Path, batches: list[list[int]]) -> None:
    together = _dataset(tiny_artifact, tmp_path / "together")
    together.materialize(batch_size=4, progress=False)
    assert batches == [[0, 0, 1, 1], [2, 2]]
    one_by_one = _dataset(tiny_artifact, tmp_path / "one")
    assert np.abs(_pixels(together) - _pixels(one_by_one)).max() <= 1
    assert all(together.cache.is_complete(label) for label in range(3))


def test_batches_go_across_classes_whatever_their_size(
    tiny_artifact: Path, tmp_path: Path, batches: list[list[int]]
) -> None:
    _dataset(tiny_artifact, tmp_path, ipc=5).materialize(batch_size=4, progress=False)
    assert batches == [[0] * 4, [0, 1, 1, 1], [1, 1, 2, 2], [2] * 3]


def test_nested_sets_make_only_what_is_missing_in_batches_across_classes_and_blocks(
    tiny_artifact: Path, tmp_path: Path, batches: list[list[int]]
) -> None:
    ipc = NESTED_BLOCK + 1
    apart = _dataset(tiny_artifact, tmp_path / "apart", ipc, nested=True)
    expected = _pixels(apart)
    assert batches == [[label] * ipc for label in range(3)]
    del batches[:]
    _dataset(tiny_artifact, tmp_path / "root", NESTED_BLOCK - 1, nested=True).materialize(progress=False)
    together = _dataset(tiny_artifact, tmp_path / "root", ipc, nested=True)
    together.materialize(batch_size=4, progress=False)
    first = [label for label in range(3) for _ in range(NESTED_BLOCK - 1)]
    assert batches == [first, [0, 0, 1, 1], [2, 2]]
    assert np.abs(_pixels(together) - expected).max() <= 1


def test_only_what_is_missing_is_batched(
    tiny_artifact: Path, tmp_path: Path, batches: list[list[int]]
) -> None:
    dataset = _dataset(tiny_artifact, tmp_path)
    dataset.materialize(progress=False)
    flip_byte(dataset.cache.path(1, 0))
    del batches[:]
    dataset.materialize(progress=False)
    assert batches == [[1, 1]]


def test_batch_is_split_where_a_group_is_larger(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = _dataset(tiny_artifact, tmp_path, ipc=5, classes=[1])
    sizes = []
    transformer = type(dataset.model().network)
    forward = transformer.forward

    def spy(self: Any, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(latents))
        return forward(self, latents, *args, **kwargs)

    monkeypatch.setattr(transformer, "forward", spy)
    dataset.materialize(batch_size=2, progress=False)
    assert max(sizes) == 4 and len(list(dataset.image_folder.rglob("*.png"))) == 5  # with the null class


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_batch_size_that_is_none_is_refused(batch_size: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        _dataset(tiny_artifact, tmp_path).materialize(batch_size)


def test_environment_gives_each_process_its_classes(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: list[list[int]]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in ((0, [0, 0, 2, 2]), (1, [1, 1])):
        monkeypatch.setenv("RANK", str(rank))
        _dataset(tiny_artifact, tmp_path).materialize(progress=False)
        assert batches.pop() == expected
    assert all(_dataset(tiny_artifact, tmp_path).cache.is_complete(label) for label in range(3))


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("a", "2"), ("0", "-1"), ("0", "")])
def test_environment_that_is_no_share_is_refused(
    rank: str, size: str, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ConfigError, match="RANK"):
        _dataset(tiny_artifact, tmp_path).materialize(progress=False)


def test_default_device_is_that_of_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    assert generation_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert generation_device(None) == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert generation_device(None) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")  # each process sees its own GPU only
    assert generation_device(None) == torch.device("cuda")


def test_forked_worker_that_needs_cuda_says_materialize(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = _dataset(tiny_artifact, tmp_path, device="cuda")
    loader: DataLoader[Any] = DataLoader(
        dataset, num_workers=1, multiprocessing_context="fork", collate_fn=list, timeout=600
    )
    with pytest.raises(CacheMissError, match=r"'ant' is not in the cache.*dataset\.materialize\(\)"):
        next(iter(loader))
    _dataset(tiny_artifact, tmp_path).materialize(progress=False)
    assert len(list(loader)) == 6


@pytest.mark.parametrize("method", ["moment_matched", "search"])
def test_nested_sets_start_alike(method: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    sampling = GroupSamplingConfig(method, num_candidates=2)
    sets = {
        ipc: _dataset(tiny_artifact, tmp_path / str(ipc), ipc, nested=True, sampling=sampling, classes=[1])
        for ipc in (1, 4, NESTED_BLOCK, NESTED_BLOCK + 3)
    }
    largest = _pixels(sets[NESTED_BLOCK + 3])
    assert len(np.unique(largest.reshape(len(largest), -1), axis=0)) == len(largest)
    for ipc, dataset in sets.items():
        assert len(dataset) == ipc and np.abs(_pixels(dataset) - largest[:ipc]).max() <= 1


@pytest.mark.parametrize(("first", "then", "calls"), [(3, 12, [9]), (10, 12, [2]), (12, 3, [])])
def test_nested_set_grows_from_what_is_cached(
    first: int, then: int, calls: list[int], tiny_artifact: Path, tmp_path: Path, batches: list[list[int]]
) -> None:
    before = _dataset(tiny_artifact, tmp_path, first, nested=True, classes=[2])
    expected = _pixels(before)
    del batches[:]
    after = _dataset(tiny_artifact, tmp_path, then, nested=True, classes=[2])
    count = min(first, then)
    assert np.array_equal(_pixels(after)[:count], expected[:count])
    assert [len(labels) for labels in batches] == calls


def test_damaged_images_do_not_grow(tiny_artifact: Path, tmp_path: Path, batches: list[list[int]]) -> None:
    before = _dataset(tiny_artifact, tmp_path, 10, nested=True, classes=[2])
    expected = _pixels(before)
    flip_byte(before.cache.path(0, 4))
    del batches[:]
    after = _dataset(tiny_artifact, tmp_path, 11, nested=True, classes=[2])
    assert np.array_equal(_pixels(after)[:10], expected) and len(batches[0]) == 11


def test_nested_set_is_another_one(tiny_artifact: Path, tmp_path: Path) -> None:
    nested, plain = (_dataset(tiny_artifact, tmp_path, 4, nested=nested) for nested in (True, False))
    assert nested.image_folder != plain.image_folder and "nested" in repr(nested)
    other = _dataset(tiny_artifact, tmp_path, 4, nested=True, seed=1, classes=[0])
    assert not np.array_equal(_pixels(other), _pixels(nested)[:4])


def test_nested_groups_match_the_class_at_whole_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, variance = torch.randn(2, 3, 3, generator=generator), torch.rand(2, 3, 3, generator=generator)
    group = sample_nested(
        lambda ipc, config: sample_group(mean, variance, ipc, 0, config), 25, GroupSamplingConfig()
    )
    assert group.shape == (30, 2, 3, 3)
    for count in (10, 20, 30):
        assert torch.allclose(group[:count].mean(dim=0), mean, atol=1e-5)
        assert torch.allclose(group[:count].var(dim=0), variance, atol=1e-5)
    for count in (2, 4, 16):
        assert torch.allclose(group[:count].mean(dim=0), mean, atol=1e-5)


def test_kept_images_need_no_file_and_are_not_shared(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = _dataset(tiny_artifact, tmp_path, in_memory=True)
    expected = _pixels(dataset)
    shutil.rmtree(dataset.image_folder)
    dataset[0][0].paste(77, (0, 0, 5, 5))
    assert np.array_equal(_pixels(dataset), expected)
    assert not dataset.image_folder.exists()


def test_first_image_may_be_changed_by_its_reader(tiny_artifact: Path, tmp_path: Path) -> None:
    expected = np.asarray(_dataset(tiny_artifact, tmp_path)[0][0])
    dataset = _dataset(tiny_artifact, tmp_path, in_memory=True)
    dataset[0][0].paste(77, (0, 0, 5, 5))
    assert np.array_equal(np.asarray(dataset[0][0]), expected)


def test_construction_writes_nothing_where_it_may_not(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "home" / "assets"))
    dataset = D3HRDataset(tiny_artifact, ipc=2, device="cpu")
    assert len(dataset) == 6 and repr(dataset)
    with pytest.raises(CacheError, match="home"):
        dataset[0]


def test_decode_settings_off_the_grid_are_the_artifacts_fault(artifact_copy: Path) -> None:
    decode = DecodeConfig(timestep=400, num_inference_steps=3).to_dict()
    change_info(artifact_copy, decode=decode)
    with pytest.raises(ArtifactFormatError, match=r"d3hr\.json: timestep 400 is not on the grid of 3 steps"):
        Artifact.load(artifact_copy)


def test_model_is_loaded_once(tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(*args: Any) -> LatentDiffusion:
        calls.append(args)
        return load_model(*args)

    monkeypatch.setattr("d3hr_datasets.dataset.images_on_demand.load_model", load)
    dataset = _dataset(tiny_artifact, tmp_path, ipc=1)
    dataset[0]
    dataset.materialize(progress=False)
    assert len(calls) == 1
