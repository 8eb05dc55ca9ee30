"""Every data set class with a tiny artifact of its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from d3hr_datasets import (
    D3HRCIFAR10,
    D3HRCIFAR100,
    D3HRDataset,
    D3HRFashionMNIST,
    D3HRImageNet,
    D3HRTinyImageNet,
)
from d3hr_datasets.classes.class_list import ClassList
from tests.support.tiny import CLASSES, save_tiny_artifact, save_untrained_artifact

IPC = 2
KEPT = [2, 0, 1]  # the classes whose images the tests make

KINDS: dict[str, tuple[type[D3HRDataset], int]] = {
    "tiny": (D3HRDataset, 3),
    "imagenet": (D3HRImageNet, 1000),
    "tiny-imagenet": (D3HRTinyImageNet, 200),
    "cifar10": (D3HRCIFAR10, 10),
    "cifar100": (D3HRCIFAR100, 100),
    "fashion-mnist": (D3HRFashionMNIST, 10),
}


class Case:
    """A data set class with a tiny artifact of its classes, and a cache of three of them."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.cls, self.num_classes = KINDS[kind]
        self.root = folder / "root"
        self.artifact = folder / "artifact"
        self.names = list(CLASSES) if kind == "tiny" else list(ClassList.packaged(kind).names)
        if kind == "tiny":
            save_tiny_artifact(self.artifact, folder / "work")
        else:
            save_untrained_artifact(self.artifact, kind, ClassList.packaged(kind))
        self().materialize(progress=False)

    def __call__(self, root: Path | None = None, **options: Any) -> D3HRDataset:
        """Return the data set of three classes, all of whose images are cached unless `root` is given."""
        return self.whole(root or self.root, **{"classes": KEPT, **options})

    def whole(self, root: Path, **options: Any) -> D3HRDataset:
        """Return the data set, of all classes."""
        return self.cls(**{"artifact": self.artifact, "root": root, "ipc": IPC, "device": "cpu", **options})

    def targets(self, dataset: Any) -> list[int]:
        """Return `targets` as a list; they are of the type of torchvision's data set of the same name."""
        targets: Any = dataset.targets
        if self.cls is D3HRFashionMNIST:
            assert isinstance(targets, torch.Tensor) and targets.dtype == torch.int64
            targets = targets.tolist()
        assert isinstance(targets, list)
        return targets
