"""The named data sets. They differ by their row in `registry.py` and their class list only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from d3hr_datasets.artifact import Artifact
from d3hr_datasets.class_list import ClassList, packaged_subset
from d3hr_datasets.config import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.dataset import D3HRDataset
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.registry import REGISTRY, registered_artifact


class NamedDataset(D3HRDataset):
    """A data set of the registry: its artifact is looked up, and its class order checked.

    Args:
        root: As in `D3HRDataset`, like all that is not listed here.
        ipc: Images per class.
        seed: Seed of the latents.
        transform: Applied to the PIL image.
        target_transform: Applied to the int label.
        artifact: Folder, "ORG/NAME" or "ORG/NAME@REVISION" to use instead of the registry's.
        classes: Classes to keep, by name, WordNet ID or class label.
        subset: Name of a usual subset to keep.
        sampling: How groups are sampled.
        decode: How groups are denoised.
        device: Where to generate.
        torch_dtype: Precision of the diffusion model.
        nested: Have sets of all sizes share their first images.
        in_memory: Keep decoded images.

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
        classes: Sequence[str | int] | None = None,
        subset: str | None = None,
        sampling: GroupSamplingConfig | None = None,
        decode: DecodeConfig | None = None,
        device: torch.device | str | None = None,
        torch_dtype: torch.dtype = torch.float32,
        nested: bool = False,
        in_memory: bool = False,
    ) -> None:
        if subset is not None:
            if classes is not None:
                raise ConfigError(f"give classes or subset, not both: {list(classes)[:5]}, {subset!r}")
            classes = packaged_subset(self.registry_name, subset)
        super().__init__(
            self.find_artifact(artifact),
            root,
            ipc,
            seed,
            transform,
            target_transform,
            classes=classes,
            sampling=sampling,
            decode=decode,
            device=device,
            torch_dtype=torch_dtype,
            nested=nested,
            in_memory=in_memory,
        )

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
        ClassList.packaged(cls.registry_name).check_artifact(artifact.info)
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


class D3HRCIFAR10(NamedDataset):
    """Distilled CIFAR-10, labelled as in torchvision. Arguments are those of `NamedDataset`."""

    registry_name = "cifar10"


class D3HRCIFAR100(NamedDataset):
    """Distilled CIFAR-100 with its fine labels, as in torchvision. Arguments are those of `NamedDataset`."""

    registry_name = "cifar100"


class D3HRFashionMNIST(NamedDataset):
    """Distilled Fashion-MNIST: 28 x 28 grey images of ten classes, labelled as in torchvision.

    Artifact and diffusion model ship with the package; nothing is downloaded. A drop-in for
    `torchvision.datasets.FashionMNIST`. Arguments are those of `NamedDataset`.
    """

    registry_name = "fashion-mnist"


def named_dataset(name: str) -> type[NamedDataset]:
    """Return the class of a named data set.

    Raises:
        ConfigError: There is none.
    """
    kinds = {kind.registry_name: kind for kind in NamedDataset.__subclasses__()}
    if name not in kinds:
        raise ConfigError(f"no data set is named {name!r}; known: {sorted(kinds)}")
    return kinds[name]
