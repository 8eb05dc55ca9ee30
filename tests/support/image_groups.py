"""Groups of small images for tests of the image cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from d3hr_datasets import D3HRDataset
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.locks import LOCKS, PARTIAL

IPC = 3


def images_of(label: int) -> list[Image.Image]:
    """Return images whose pixels tell their label and position."""
    return [Image.new("L", (5, 5), 20 * label + position) for position in range(IPC)]


class Maker:
    """Makes the images of a label, and counts how often."""

    def __init__(self, label: int) -> None:
        self.label = label
        self.calls = 0

    def __call__(self) -> Sequence[Image.Image]:
        self.calls += 1
        return images_of(self.label)


def never() -> Sequence[Image.Image]:
    raise AssertionError("made again")


def dataset_in(artifact: Path, root: Path) -> D3HRDataset:
    return D3HRDataset(artifact, root, ipc=IPC, device="cpu")


def left_over(root: Path) -> list[Path]:
    return sorted(path for kind in (PARTIAL, LOCKS) for path in (root / kind).glob("*"))


def complete_set(root: Path, settings: dict[str, object] | None = None) -> ImageCache:
    cache = ImageCache(root, "set", ["a", "b"], IPC, settings=settings)
    for label in (0, 1):
        cache.ensure(label, Maker(label))
    return cache
