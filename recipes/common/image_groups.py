"""Groups of images as folders, which a table of students takes as `source: "images:FOLDER"`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from d3hr_datasets import D3HRDataset
from d3hr_datasets.classes.folders import class_folders


def save_group(root: Path, dataset: D3HRDataset, images_of: Callable[[int], list[Image.Image]]) -> None:
    """Write a group of images, a folder for each class.

    Args:
        root: Folder to write to.
        dataset: Whose classes the images have.
        images_of: Label -> images.
    """
    for label, name in enumerate(class_folders(dataset.classes)):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images_of(label)):
            image.save(root / name / f"{index:05d}.png")
    print(root)
