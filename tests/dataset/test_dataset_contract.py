"""What every data set class promises to users of torchvision, timm and torch.utils.data."""

from __future__ import annotations

import functools
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.loader import create_loader
from torch import multiprocessing
from torch.multiprocessing.spawn import spawn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, random_split
from torchvision.datasets import (
    DatasetFolder,
    ImageFolder,
    VisionDataset,
    wrap_dataset_for_transforms_v2,
)
from torchvision.transforms import v2

from tests.support.cases import IPC, KEPT, KINDS, Case
from tests.support.workers import read_shares


@pytest.fixture(scope="module")
def make_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Return what gives the case of a kind, the same each time. Tests do not write to its root."""
    return functools.cache(lambda kind: Case(kind, tmp_path_factory.mktemp(kind)))


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, make_case: Callable[[str], Case]) -> Case:
    """Return each data set class in turn."""
    return make_case(request.param)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail where a model is loaded."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("d3hr_datasets.dataset.images_on_demand.load_model", refuse)
    yield


def _bytes(dataset: Any) -> list[bytes]:
    return [dataset[index][0].tobytes() for index in range(len(dataset))]


@pytest.mark.usefixtures("no_model")
def test_labels_need_no_images(case: Case, tmp_path: Path) -> None:
    dataset = case.whole(tmp_path / "root")
    assert len(dataset) == IPC * case.num_classes
    targets = case.targets(dataset)
    assert targets == [label for label in range(case.num_classes) for _ in range(IPC)]
    assert all(type(target) is int for target in targets)
    assert dataset.classes == case.names
    assert dataset.class_to_idx == {name: label for label, name in enumerate(case.names)}
    assert dataset.class_labels.tolist() == list(range(case.num_classes))
    assert [label for _, label in dataset.samples] == targets
    assert [dataset.wnid_to_idx[wnid] for wnid in dataset.wnids] == list(range(len(dataset.wnids)))
    assert not (tmp_path / "root").exists()


def test_kept_classes_have_their_own_labels(case: Case) -> None:
    dataset = case()
    assert dataset.class_labels.tolist() == KEPT
    assert dataset.classes == [case.names[label] for label in KEPT]
    assert case.targets(dataset) == [0, 0, 1, 1, 2, 2]
    by_name = case(classes=[case.names[label] for label in KEPT])
    assert by_name.image_folder == dataset.image_folder
    if dataset.wnids:
        assert case(classes=list(dataset.wnids)).image_folder == dataset.image_folder


@pytest.mark.usefixtures("no_model")
def test_items(case: Case) -> None:
    dataset = case()
    assert isinstance(dataset, VisionDataset) and isinstance(dataset, DatasetFolder)
    for index in range(len(dataset)):
        image, label = dataset[index]
        assert isinstance(image, Image.Image) and image.mode == dataset.artifact.info.image_mode
        assert image.size == (dataset.artifact.info.image_size,) * 2
        assert type(label) is int and label == dataset.targets[index]
    assert len(set(_bytes(dataset))) == 6


@pytest.mark.usefixtures("no_model")
def test_samples_are_the_files(case: Case) -> None:
    dataset = case()
    folder = ImageFolder(str(dataset.image_folder))
    assert dataset.samples == folder.samples
    assert [dataset.loader(path).tobytes() for path, _ in dataset.samples] == _bytes(dataset)


@pytest.mark.parametrize("index", [-7, -(10**9), 6, 10**9])
def test_out_of_range_is_an_index_error(index: int, case: Case) -> None:
    with pytest.raises(IndexError, match=f"{index} is out of range.*6 images"):
        case()[index]


@pytest.mark.usefixtures("no_model")
def test_negative_indices_count_from_the_end(case: Case) -> None:
    for dataset in (case(), case(in_memory=True)):
        items = [dataset[index] for index in range(-6, 0)]
        assert [image.tobytes() for image, _ in items] == _bytes(dataset)
        assert [label for _, label in items] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("index", [1.5, 1.0, "1", None, slice(0, 2)])
def test_what_is_no_integer_is_a_type_error(index: Any, case: Case) -> None:
    with pytest.raises(TypeError, match="integer"):
        case()[index]


def test_repr_says_what_it_is(case: Case) -> None:
    text = repr(case(transform=v2.PILToTensor()))
    for part in (f"Dataset {case.cls.__name__}", "datapoints: 6", "Images per class: 2", "PILToTensor"):
        assert part in text


def test_transform_is_read_when_an_item_is(case: Case) -> None:
    dataset = case()
    dataset.transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    dataset.target_transform = str
    image, label = dataset[2]
    assert image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1 and label == "1"


def test_transforms_v2_wraps_it(case: Case) -> None:
    dataset = case(transform=v2.PILToTensor())
    wrapped = wrap_dataset_for_transforms_v2(dataset)
    assert (
        isinstance(wrapped, case.cls) and len(wrapped) == 6 and case.targets(wrapped) == case.targets(case())
    )
    image, label = wrapped[2]
    assert torch.equal(image, v2.functional.pil_to_tensor(case()[2][0])) and label == 1
    again = pickle.loads(pickle.dumps(wrapped))
    assert torch.equal(again[2][0], image)


@pytest.mark.parametrize("in_memory", [False, True])
def test_it_pickles(in_memory: bool, case: Case) -> None:
    dataset = case(in_memory=in_memory)
    expected = _bytes(dataset)
    assert len(pickle.dumps(dataset)) < 300_000  # neither images nor model
    assert _bytes(pickle.loads(pickle.dumps(dataset))) == expected


def test_global_generators_stay(case: Case, tmp_path: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    case(tmp_path)[0]
    after = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_parts_and_sums(case: Case) -> None:
    dataset = case()
    expected = _bytes(dataset)
    assert _bytes(Subset(dataset, [5, 0])) == [expected[5], expected[0]]
    both: ConcatDataset[Any] = ConcatDataset([dataset, dataset])
    assert len(both) == 12 and both[-1][0].tobytes() == expected[5]
    parts = random_split(dataset, [4, 2], torch.Generator().manual_seed(0))
    assert sorted(_bytes(parts[0]) + _bytes(parts[1])) == sorted(expected)


def _loader(dataset: Dataset[Any], workers: int, context: str | None) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=4,
        collate_fn=list,
        num_workers=workers,
        multiprocessing_context=context,
        timeout=600 if workers else 0,
    )


def _items(loader: DataLoader[Any]) -> list[tuple[bytes, int]]:
    return [(image.tobytes(), label) for batch in loader for image, label in batch]


def _expected(case: Case) -> list[tuple[bytes, int]]:
    dataset = case()
    return list(zip(_bytes(dataset), case.targets(dataset), strict=True))


@pytest.mark.parametrize("generate", [False, True])
@pytest.mark.parametrize(("workers", "context"), [(0, None), (1, "fork"), (2, "fork")])
def test_loaders(workers: int, context: str | None, generate: bool, case: Case, tmp_path: Path) -> None:
    dataset = case(tmp_path / "root" if generate else None)
    found = _items(_loader(dataset, workers, context))
    assert [label for _, label in found] == case.targets(dataset)
    _assert_alike(found, _expected(case), grey_levels=int(generate))


@pytest.mark.parametrize("workers", [1, 2])
def test_spawned_workers_read_and_generate(
    workers: int, make_case: Callable[[str], Case], tmp_path: Path
) -> None:
    """Every class in one loader, for a process takes seconds to start: first cached, then not."""
    cases = [make_case(kind) for kind in KINDS]
    datasets = [case(tmp_path / case.root.parent.name if miss else None) for miss in (0, 1) for case in cases]
    found = _items(_loader(ConcatDataset(datasets), workers, "spawn"))
    expected = [item for case in cases for item in _expected(case)]
    assert found[: len(expected)] == expected
    _assert_alike(found[len(expected) :], expected, grey_levels=1)
    for dataset in datasets:
        assert all(dataset.cache.is_complete(label) for label in range(3))


def _assert_alike(
    found: list[tuple[bytes, int]], expected: list[tuple[bytes, int]], grey_levels: int
) -> None:
    """Compare pixels and labels. `Case` generates classes together, a miss one: rounding may differ."""
    assert [label for _, label in found] == [label for _, label in expected]
    for (image, _), (other, _) in zip(found, expected, strict=True):
        pixels, others = (np.frombuffer(data, np.uint8).astype(int) for data in (image, other))
        assert np.abs(pixels - others).max() <= grey_levels


@pytest.mark.parametrize("workers", [0, 2])
def test_timm_loads_it(workers: int, case: Case, tmp_path: Path) -> None:
    dataset: Any = case(tmp_path / "root" if workers else None)  # workers generate
    channels = len(dataset.artifact.info.image_mode)  # "L" or "RGB"
    loader = create_loader(
        dataset,
        input_size=(3, 16, 16),
        batch_size=3,
        use_prefetcher=False,
        num_workers=workers,
        device=torch.device("cpu"),
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        persistent_workers=False,
    )
    images, labels = zip(*loader, strict=True)
    assert torch.cat(labels).tolist() == case.targets(dataset)
    assert torch.cat(images).shape == (6, channels, 16, 16)
    assert all(dataset.cache.is_complete(label) for label in range(3))


def test_two_processes_share_it(make_case: Callable[[str], Case], tmp_path: Path) -> None:
    """Every class in the same two processes, which takes seconds to start."""
    cases = [make_case(kind) for kind in KINDS]
    datasets = [case(tmp_path / "root" / case.root.parent.name) for case in cases]
    results = multiprocessing.get_context("spawn").SimpleQueue()
    spawn(read_shares, (datasets, str(tmp_path / "store"), results), nprocs=2)
    shares = dict(results.get() for _ in range(2))
    for dataset, first, second in zip(datasets, shares[0], shares[1], strict=True):
        assert first["made"] == [0, 2] and second["made"] == [1]
        assert not set(first["items"]) & set(second["items"])
        assert {**first["items"], **second["items"]} == dict(enumerate(_bytes(dataset)))
