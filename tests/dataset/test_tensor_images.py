"""`in_memory="tensor"`: items, batches of a loader, and what a transform is given."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import wrap_dataset_for_transforms_v2
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets import D3HRDataset
from d3hr_datasets.errors import ConfigError
from tests.dataset.test_fresh_groups import fresh_set
from tests.support.sets import IPC, tiny_set
from tests.support.tampering import flip_byte


def _tensors(filled: D3HRDataset, root: Path | None = None, **options: Any) -> D3HRDataset:
    return tiny_set(filled.artifact.folder, root or Path(filled.root), in_memory="tensor", **options)


def _stacked(dataset: D3HRDataset) -> torch.Tensor:
    return torch.stack([pil_to_tensor(dataset[index][0]) for index in range(len(dataset))])


def test_items_are_the_images_as_tensors(filled: D3HRDataset) -> None:
    dataset, expected = _tensors(filled), _stacked(filled)
    for index in (0, len(expected) - 1, -1):
        image, label = dataset[index]
        assert torch.equal(image, expected[index]) and label == filled.targets[index]
        assert isinstance(label, int)
    dataset[0][0].zero_()  # is not that of the set
    assert torch.equal(dataset[0][0], expected[0])
    with pytest.raises(IndexError, match="index 99 is out of range"):
        dataset.__getitems__([0, 99])


def test_a_loader_gives_the_same_batches_as_of_images(filled: D3HRDataset) -> None:
    tensors = _tensors(filled, target_transform=lambda label: label + 5)
    for source in (tensors, Subset(tensors, range(len(filled)))):
        batches = list(DataLoader(source, batch_size=2))
        assert torch.equal(torch.cat([images for images, _ in batches]), _stacked(filled))
        assert torch.cat([labels for _, labels in batches]).tolist() == [n + 5 for n in filled.targets]


def test_a_transform_takes_batches(filled: D3HRDataset) -> None:
    seen = []

    def transform(images: torch.Tensor) -> torch.Tensor:
        seen.append((images.dtype, tuple(images.shape)))
        return images / 255

    dataset, shape = _tensors(filled, transform=transform), tuple(_stacked(filled).shape)
    [(images, _)] = DataLoader(dataset, batch_size=len(dataset))
    assert torch.equal(images, _stacked(filled) / 255)
    assert dataset[3][0].shape == shape[1:]
    assert seen == [(torch.uint8, shape), (torch.uint8, (1, *shape[1:]))]


@pytest.mark.parametrize("transform", [lambda images: [*images], lambda images: images[:1], torch.sum])
def test_a_transform_that_takes_no_batches_is_named(transform: Any, filled: D3HRDataset) -> None:
    dataset = _tensors(filled, transform=transform)
    with pytest.raises(ConfigError, match=r"takes a batch, uint8 \(2, 1, \d+, \d+\)"):
        dataset.__getitems__([0, 1])


def test_it_is_read_once_and_made_where_it_is_missing_or_damaged(filled: D3HRDataset, tmp_path: Path) -> None:
    expected = _stacked(filled)
    fresh = _tensors(filled, tmp_path / "new")
    assert (_all(fresh) - expected).abs().max() <= 1
    root = Path(shutil.copytree(filled.root, tmp_path / "copy"))
    dataset = _tensors(filled, root)
    flip_byte(dataset.cache.path(1, IPC - 1))
    assert (_all(dataset) - expected).abs().max() <= 1
    shutil.rmtree(root)
    assert len(_all(dataset)) == len(expected) and len(pickle.dumps(dataset)) < 20_000


def _all(dataset: D3HRDataset) -> torch.Tensor:
    return torch.stack([image for image, _ in dataset.__getitems__(range(len(dataset)))]).int()


def test_another_epoch_has_other_tensors(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = fresh_set(tiny_artifact, tmp_path, in_memory="tensor", keep_epochs=1)
    first = _all(dataset)
    dataset.set_epoch(1)
    assert not torch.equal(_all(dataset), first)
    dataset.set_epoch(0)
    assert torch.equal(_all(dataset), first)


def test_subclasses_and_wrappers_keep_their_own_items(filled: D3HRDataset) -> None:
    class Numbered(D3HRDataset):
        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return index, super().__getitem__(index)[1]

    numbered = Numbered(filled.artifact.folder, filled.root, IPC, in_memory="tensor", device="cpu")
    assert [item for item, _ in numbered.__getitems__([2, 0])] == [2, 0]
    wrapped = wrap_dataset_for_transforms_v2(_tensors(filled, transform=lambda image: image * 0))
    assert wrapped.__getitems__([1])[0][0].max() == 0


def test_batches_of_images_are_lists_of_items(filled: D3HRDataset) -> None:
    assert filled.__getitems__([2, -1]) == [filled[2], filled[-1]]


@pytest.mark.parametrize("value", ["tensors", "yes", 1, None])
def test_other_values_are_refused(value: Any, filled: D3HRDataset) -> None:
    with pytest.raises(ConfigError, match="in_memory must be False, True or 'tensor'"):
        tiny_set(filled.artifact.folder, Path(filled.root), in_memory=value)
