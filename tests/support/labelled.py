"""Labelled images as torchvision has them."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torchvision.datasets import VisionDataset


class Labelled(VisionDataset[Any]):
    """A data set of torchvision's kind with any classes."""

    def __init__(self, classes: list[Any], targets: list[int]) -> None:
        self.classes, self.targets = classes, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("L", (14, 14), 10 * index), self.targets[index]
