"""The named data sets. They differ by their row in `artifact_registry` and their class list only.

Those that torchvision has with a `train` argument also take its arguments in its order, and have its `data`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Unpack, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from d3hr_datasets.dataset.options import NamedSetOptions
from d3hr_datasets.dataset.registered_dataset import NamedDataset
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral


class D3HRImageNet(NamedDataset):
    """Distilled ImageNet-1K: 1000 classes in the order of torchvision's and timm's models.

    `subset` is "imagenette", "imagewoof" (ten classes of ImageNet-1K each) or "imagenet100" (the hundred
    classes of Contrastive Multiview Coding), with labels in the order of WordNet IDs. Arguments are those of
    `NamedDataset`.

    Its numbers rest on a ResNet-18 ("resnet18") taught by timm's "resnet18.tv_in1k", on random crops of 224
    pixels (the paper's protocol, "d3hr"); none are measured here yet. `test_set` is torchvision's
    `ImageNet(root, split="val")`; its images are resized to 256 pixels and cropped to 224.
    """

    registry_name = "imagenet"


class D3HRTinyImageNet(NamedDataset):
    """Distilled Tiny ImageNet: 200 classes in the order of WordNet IDs, as `ImageFolder` labels them.

    Arguments are those of `NamedDataset`.

    Its numbers rest on a ResNet-18 for small images ("resnet18_modified") taught by another of its kind, on
    random crops of 64 pixels (the paper's protocol, "d3hr"); none are measured here yet. `test_set` reads the
    validation images of the official archive; they are resized to 72 pixels and cropped to 64.
    """

    registry_name = "tiny-imagenet"


class TrainingSet(NamedDataset):
    """What stands in for the training set of a data set of torchvision.

    Positional arguments are `root, ipc, seed, transform, target_transform`, as everywhere here. A bool in the
    second place is torchvision's `train`, and what follows it is in torchvision's order: `root, train,
    transform, target_transform, download`.

    `data` holds the pixels, in torchvision's type. It is put together when it is asked for, class by class
    where images are not cached (`materialize` shows progress), and cannot be assigned: to keep some of the
    images, give `classes`, or use `torch.utils.data.Subset`.

    Args:
        root: As in `NamedDataset`, like all that is not listed here.
        train: True. There is only a training set.
        download: Accepted for torchvision's sake. It changes nothing: what is needed is fetched when it is.

    Raises:
        ConfigError: `train` is False, or as in `NamedDataset`.
    """

    torchvision_name: ClassVar[str]
    tensor_targets: ClassVar[bool] = False

    @overload
    def __init__(
        self,
        root: str | Path | None,
        train: bool,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        download: bool = False,
        *,
        ipc: int = 10,
        seed: int = 0,
        **options: Unpack[NamedSetOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        root: str | Path | None = None,
        ipc: int = 10,
        seed: int = 0,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        *,
        train: bool = True,
        download: bool = False,
        **options: Unpack[NamedSetOptions],
    ) -> None: ...

    def __init__(self, root: str | Path | None = None, *positional: Any, **options: Any) -> None:
        of_torchvision = bool(positional) and isinstance(positional[0], bool | np.bool_)
        order = ("train", "transform", "target_transform", "download")
        if not of_torchvision:
            order = ("ipc", "seed", "transform", "target_transform")
        if len(positional) > len(order):
            raise TypeError(
                f"{type(self).__name__} takes {order} after root, not {len(positional)} arguments"
            )
        for name, value in zip(order, positional, strict=False):
            if name in options:
                raise TypeError(f"{type(self).__name__} got several values for the argument {name!r}")
            options[name] = value
        self.train = options.pop("train", True)
        if not isinstance(self.train, bool | np.bool_) or not self.train:
            raise ConfigError(
                f"train must be True, not {self.train!r}: a distilled data set is a training set only; test "
                f"on the real images, torchvision.datasets.{self.torchvision_name}(root, train=False)"
            )
        if not isinstance(download := options.pop("download", False), bool):
            raise ConfigError(f"download must be a bool, not {download!r}")
        super().__init__(root, **options)
        if self.tensor_targets:
            with neutral():
                self.targets: Any = torch.tensor(self.targets)

    def _pixels(self) -> npt.NDArray[np.uint8]:
        """Return all images, (N, H, W) or (N, H, W, 3)."""
        return np.stack([np.asarray(self._image(index)) for index in range(len(self))])


class D3HRCIFAR10(TrainingSet):
    """Distilled CIFAR-10, labelled as in torchvision.

    `data` is an (N, 32, 32, 3) uint8 array and `targets` a list, as there. Arguments are those of
    `TrainingSet`.

    Its numbers rest on a ResNet-18 for small images ("resnet18_modified") taught by another of its kind, on
    random crops of 32 pixels (the paper's protocol, "d3hr"); none are measured here yet. `test_set` is
    torchvision's `CIFAR10(root, train=False)`.
    """

    registry_name = "cifar10"
    torchvision_name = "CIFAR10"

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """All images, (N, H, W, 3) uint8: a copy."""
        return self._pixels()


class D3HRCIFAR100(TrainingSet):
    """Distilled CIFAR-100 with its fine labels, as in torchvision.

    `data` is an (N, 32, 32, 3) uint8 array and `targets` a list, as there. Arguments are those of
    `TrainingSet`.

    Its numbers rest on a ResNet-18 for small images ("resnet18_modified") taught by another of its kind, on
    random crops of 32 pixels (the paper's protocol, "d3hr"); none are measured here yet. `test_set` is
    torchvision's `CIFAR100(root, train=False)`.
    """

    registry_name = "cifar100"
    torchvision_name = "CIFAR100"

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """All images, (N, H, W, 3) uint8: a copy."""
        return self._pixels()


class D3HRFashionMNIST(TrainingSet):
    """Distilled Fashion-MNIST: 28 x 28 grey images of ten classes, labelled as in torchvision.

    Artifact and diffusion model ship with the package; nothing is downloaded. To be used as
    `torchvision.datasets.FashionMNIST(root, train=True)` is: with its arguments, its items, and its `data`,
    (N, 28, 28) uint8, and `targets`, (N,) int64, as tensors; `data` cannot be assigned. Arguments are those
    of `TrainingSet`.

    Its numbers (`hub/results/tables/soft-labels.md` in the repository) rest on a ConvNet of three blocks
    ("convnet3") taught by a small ResNet that ships with the package ("embedded:fashion-mnist"), on grey
    images of 28 pixels that are flipped at random (this project's protocol, "soft"). `test_set` is
    torchvision's `FashionMNIST(root, train=False)`.

    Example:
        >>> train_set = D3HRFashionMNIST("cache", True, ToTensor(), ipc=10)
        >>> test_set = train_set.test_set("data", ToTensor(), download=True)
    """

    registry_name = "fashion-mnist"
    torchvision_name = "FashionMNIST"
    tensor_targets = True
    targets: torch.Tensor  # a list in DatasetFolder

    @property
    @neutral()
    def data(self) -> torch.Tensor:
        """All images, (N, 28, 28) uint8: a copy."""
        return torch.from_numpy(self._pixels())


def list_datasets() -> list[str]:
    """Return the names of all data sets that `get_dataset` knows, sorted; those of your own classes, too.

    `d3hr list` also says which of them are ready.
    """
    return sorted(_classes_by_name())


def get_dataset(name: str, **arguments: Any) -> NamedDataset:
    """Return a named data set, as its class makes it.

    Args:
        name: A name of `list_datasets`.
        arguments: Those of its class, by name: `root`, `ipc`, `seed`, `transform`, ...

    Raises:
        ConfigError: There is no such name, or an argument is not accepted.
        ArtifactNotFoundError: Its artifact is not published yet; the message says how to build it.

    Example:
        >>> train_set = get_dataset("fashion-mnist", ipc=10)
    """
    return named_dataset(name)(**arguments)


def named_dataset(name: str) -> type[NamedDataset]:
    """Return the class of a named data set.

    Raises:
        ConfigError: There is none; the message has the known names, and those that are spelled nearly so.
    """
    kinds = _classes_by_name()
    if name in kinds:
        return kinds[name]
    spelled = {_plain(known): known for known in kinds}
    spelled |= {_plain(kind.__name__): known for known, kind in kinds.items()}
    near = [spelled[match] for match in difflib.get_close_matches(_plain(str(name)), spelled)]
    meant = f"; did you mean {' or '.join(map(repr, dict.fromkeys(near)))}?" if near else ""
    raise ConfigError(f"no data set is named {name!r}; known: {sorted(kinds)}{meant}")


def _plain(name: str) -> str:
    """Return a name without case, "-", "_" and the like."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _classes_by_name() -> dict[str, type[NamedDataset]]:
    return {kind.registry_name: kind for kind in _subclasses(NamedDataset) if "registry_name" in vars(kind)}


def _subclasses(kind: type[NamedDataset]) -> Iterator[type[NamedDataset]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
