"""What code written for torchvision's data sets of the same names finds: arguments, `data`, `targets`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.datasets import wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from d3hr_datasets import D3HRCIFAR10, D3HRCIFAR100, D3HRFashionMNIST
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.dataset.named_datasets import TrainingSet, named_dataset
from d3hr_datasets.errors import ConfigError
from tests.support.tiny import save_untrained_artifact

KINDS: dict[str, type[TrainingSet]] = {
    "fashion-mnist": D3HRFashionMNIST,
    "cifar10": D3HRCIFAR10,
    "cifar100": D3HRCIFAR100,
}


class Scene:
    """A class, torchvision's of the same name, and the options of a cached set of three classes."""

    def __init__(self, name: str, folder: Path) -> None:
        self.kind: Any = KINDS[name]
        self.torchvision: Any = getattr(torchvision.datasets, self.kind.torchvision_name)
        self.root = folder / "root"
        save_untrained_artifact(folder / "artifact", name, ClassList.packaged(name))
        self.options: dict[str, Any] = {
            "artifact": folder / "artifact",
            "classes": [2, 0, 1],
            "device": "cpu",
            "ipc": 2,
        }
        self.kind(self.root, True, **self.options).materialize(progress=False)


@pytest.fixture(scope="module", params=KINDS)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Return each of the classes in turn."""
    return Scene(request.param, tmp_path_factory.mktemp(request.param))


def _twice(image: Image.Image) -> torch.Tensor:
    return v2.functional.pil_to_tensor(image)


def test_its_arguments_are_taken_in_torchvisions_order(scene: Scene) -> None:
    order = list(inspect.signature(scene.torchvision.__init__).parameters)[1:]
    assert order == ["root", "train", "transform", "target_transform", "download"]
    values = (scene.root, True, _twice, str, False)
    for count in range(1, len(values) + 1):
        positional = values[:count]
        named = dict(list(zip(order, values, strict=True))[count:])
        dataset = scene.kind(*positional, **named, **scene.options)
        assert (dataset.transform, dataset.target_transform, dataset.train) == (_twice, str, True)
        image, label = dataset[-1]
        assert torch.equal(image, _twice(scene.kind(scene.root, **scene.options)[5][0])) and label == "2"
    for download in (True, False):
        assert len(scene.kind(root=scene.root, train=True, download=download, **scene.options)) == 6


def test_its_own_order_is_that_of_every_data_set(scene: Scene) -> None:
    options = {key: value for key, value in scene.options.items() if key != "ipc"}
    dataset = scene.kind(scene.root, 2, 0, _twice, str, **options)
    assert (dataset.ipc, dataset.seed, dataset.transform, dataset.target_transform) == (2, 0, _twice, str)
    assert dataset.image_folder == scene.kind(scene.root, True, ipc=2, **options).image_folder
    assert scene.kind(scene.root, True, ipc=3, seed=4, **options).seed == 4
    assert scene.kind(**options).ipc == 10


@pytest.mark.parametrize("train", [False, None, 1, "test"])
def test_there_is_no_test_set_and_it_says_where_one_is(train: Any, scene: Scene) -> None:
    there = rf"torchvision\.datasets\.{scene.kind.torchvision_name}\(root, train=False\)"
    with pytest.raises(ConfigError, match=f"train must be True.*training set only.*{there}"):
        scene.kind(scene.root, train=train, **scene.options)
    if isinstance(train, bool):
        with pytest.raises(ConfigError, match="training set only"):
            scene.kind(scene.root, train, **scene.options)


def test_arguments_too_many_twice_or_of_another_kind_are_refused(scene: Scene) -> None:
    with pytest.raises(TypeError, match="several values for the argument 'train'"):
        scene.kind(scene.root, True, train=True)
    with pytest.raises(TypeError, match="several values for the argument 'ipc'"):
        scene.kind(scene.root, 2, ipc=2)
    with pytest.raises(TypeError, match="not 5 arguments"):
        scene.kind(scene.root, True, None, None, False, 1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'splits'"):
        scene.kind(scene.root, splits="train")
    with pytest.raises(ConfigError, match="download must be a bool"):
        scene.kind(scene.root, download="yes", **scene.options)
    with pytest.raises(ConfigError, match="ipc must be an integer, not True"):
        scene.kind(scene.root, **{**scene.options, "ipc": True})


def test_pixels_and_labels_are_of_torchvisions_types(scene: Scene, tmp_path: Path) -> None:
    for root in (scene.root, tmp_path):  # cached, and made when asked for
        dataset = scene.kind(root, True, v2.PILToTensor(), **scene.options)
        data, targets = dataset.data, dataset.targets
        if scene.kind is D3HRFashionMNIST:
            assert isinstance(data, torch.Tensor) and data.dtype == torch.uint8
            assert isinstance(targets, torch.Tensor) and targets.dtype == torch.int64
            targets, data = targets.tolist(), data.numpy()
        assert type(data) is np.ndarray and data.dtype == np.uint8 and data.shape == (6, 16, 16, 3)
        assert targets == [0, 0, 1, 1, 2, 2] and [dataset[index][1] for index in range(6)] == targets
        for index in range(6):
            pixels = torch.from_numpy(data[index]).permute(2, 0, 1)
            assert torch.equal(dataset[index][0], pixels) and torch.equal(dataset[index - 6][0], pixels)
        wrapped: Any = wrap_dataset_for_transforms_v2(dataset)
        assert np.array_equal(np.asarray(wrapped.data), data)
    with pytest.raises(AttributeError):
        dataset.data = data[:2]  # it would change no item


def test_labels_that_were_changed_are_those_of_the_items(scene: Scene) -> None:
    dataset = scene.kind(scene.root, True, **scene.options)
    dataset.targets[-1] = 7
    image, label = dataset[5]
    assert label == 7 and type(label) is int and isinstance(image, Image.Image)


def test_fashion_mnist_is_grey_as_torchvisions(tmp_path: Path) -> None:
    dataset = D3HRFashionMNIST(tmp_path, True, ipc=1, classes=["Bag", "Dress"], device="cpu")
    data: Any = dataset.data
    assert (data.shape, data.dtype) == ((2, 28, 28), torch.uint8)
    assert torch.equal(data[1], v2.functional.pil_to_tensor(dataset[-1][0])[0])
    assert dataset.targets.tolist() == [0, 1]


def test_every_named_data_set_is_found() -> None:
    for name, kind in KINDS.items():
        assert named_dataset(name) is kind
    assert named_dataset("imagenet").__name__ == "D3HRImageNet"
