"""Sets as anybody makes them, tiny: folders of PNG files, and files of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.image_sets.opening import OpenedImageSet
from d3hr_datasets.students.views import Images

REAL = ClassList(("T-shirt/top", "Dress", "Ankle boot"))
SIZE = 4


def grey(level: int, size: int = SIZE) -> Image.Image:
    """Return an image of one grey level."""
    return Image.new("L", (size, size), level)


def save_folder(root: Path, names: Sequence[str], images: Sequence[Image.Image] = ()) -> Path:
    """Save a folder per class, with one image each, by default of the grey levels 10, 20, ..."""
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        image = images[place] if images else grey(10 * (place + 1))
        image.save(root / name / "0.png")
    return root


def save_tensors(path: Path, stored: Any) -> Path:
    """Save with `torch.save`."""
    torch.save(stored, path)
    return path


def levels(found: OpenedImageSet) -> dict[int, list[int]]:
    """Return the value of the first pixel of each image, by label."""
    pairs = [found.images[index] for index in range(len(found.images))]
    return {label: [int(image[0, 0, 0]) for image, other in pairs if other == label] for _, label in pairs}


def pixels_and_labels(images: Images) -> list[tuple[int, bytes]]:
    """Return (label, pixels) of all images, sorted."""
    pairs = [images[index] for index in range(len(images))]
    return sorted((int(label), image.numpy().tobytes()) for image, label in pairs)
