"""The named data sets. They differ by their row in `artifact_registry` and their class list only.

Those that torchvision has with a `train` argument also take its arguments in its order, and have its `data`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Unpack, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.classes.class_list import ClassList, packaged_subset
from d3hr_datasets.dataset.artifact_registry import REGISTRY, registered_artifact
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.dataset.options import NamedSetOptions, SetOptions, check_options
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral


class NamedDataset(D3HRDataset):
    """A data set of the registry: its artifact is looked up, and its class order checked.

    Args:
        root: As in `D3HRDataset`, like all that is not listed here.
        ipc: Images per class.
        seed: Seed of the latents.
        transform: Applied to the PIL image.
        target_transform: Applied to the int label.
        artifact: Folder, "ORG/NAME" or "ORG/NAME@REVISION" to use instead of the registry's.
        subset: Name of a usual subset of the classes to keep.
        options: `classes`, `sampling`, `decode`, `device`, `torch_dtype`, `nested`, `in_memory`.

    Raises:
        ArtifactNotFoundError: There is no artifact at `artifact`, or, without it, none is published yet.
        ArtifactFormatError: The artifact has other classes, or another order.
        ConfigError: `classes` and `subset` are both given or unknown, or as in `D3HRDataset`.
    """

    registry_name: ClassVar[str]

    def __init__(
        self,
        root: str | Path | None = None,
        ipc: int = 10,
        seed: int = 0,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        *,
        artifact: str | Path | Artifact | None = None,
        subset: str | None = None,
        **options: Unpack[SetOptions],
    ) -> None:
        check_options(type(self), options)
        if subset is not None:
            classes = options.get("classes")
            if classes is not None:
                raise ConfigError(f"give classes or subset, not both: {list(classes)[:5]}, {subset!r}")
            options["classes"] = packaged_subset(self.registry_name, subset)
        found = self.find_artifact(artifact)
        super().__init__(found, root, ipc, seed, transform, target_transform, **options)

    @classmethod
    def find_artifact(cls, artifact: str | Path | Artifact | None = None) -> Artifact:
        """Open the registry's artifact, or another one of the same classes.

        Raises:
            ArtifactNotFoundError: There is no artifact at `artifact`, or, without it, none is published yet.
            ArtifactFormatError: The artifact has other classes, or another order.
        """
        if artifact is None:
            row = REGISTRY[cls.registry_name]
            artifact = Artifact.from_pretrained(registered_artifact(row.name), sha256=row.sha256)
        elif not isinstance(artifact, Artifact):
            artifact = Artifact.from_pretrained(artifact)
        classes = ClassList.packaged(cls.registry_name)
        classes.check_same(artifact.info.class_list, f"the artifact {artifact.info.name}")
        return artifact

    @property
    def class_list(self) -> ClassList:
        """Every class of the model by class label: those of the package."""
        return ClassList.packaged(self.registry_name)


class D3HRImageNet(NamedDataset):
    """Distilled ImageNet-1K: 1000 classes in the order of torchvision's and timm's models.

    `subset` is "imagenette", "imagewoof" (ten classes of ImageNet-1K each) or "imagenet100" (the hundred
    classes of Contrastive Multiview Coding), with labels in the order of WordNet IDs. Arguments are those of
    `NamedDataset`.
    """

    registry_name = "imagenet"


class D3HRTinyImageNet(NamedDataset):
    """Distilled Tiny ImageNet: 200 classes in the order of WordNet IDs, as `ImageFolder` labels them.

    Arguments are those of `NamedDataset`.
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

    Example:
        >>> train_set = D3HRFashionMNIST("cache", True, ToTensor(), ipc=10)
        >>> test_set = torchvision.datasets.FashionMNIST("data", False, ToTensor(), download=True)
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


def named_dataset(name: str) -> type[NamedDataset]:
    """Return the class of a named data set.

    Raises:
        ConfigError: There is none.
    """
    kinds = {kind.registry_name: kind for kind in _subclasses(NamedDataset) if "registry_name" in vars(kind)}
    if name not in kinds:
        raise ConfigError(f"no data set is named {name!r}; known: {sorted(kinds)}")
    return kinds[name]


def _subclasses(kind: type[NamedDataset]) -> Iterator[type[NamedDataset]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
