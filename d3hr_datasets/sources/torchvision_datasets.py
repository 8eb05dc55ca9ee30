"""torchvision's own data sets, by the names of their classes -> images."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision import datasets

from d3hr_datasets.errors import SourceError
from d3hr_datasets.sources.image_folders import load_image
from d3hr_datasets.sources.records import Images
from d3hr_datasets.sources.user_datasets import LABELS, class_names, identity_of_pixels, indexed_images


def open_torchvision(
    name: str, root: str, split: str = "train", download: bool = False
) -> tuple[Images, tuple[str, ...] | None]:
    """Open a data set.

    Args:
        name: Its class in `torchvision.datasets`.
        root: The folder it is in.
        split: "train", "test", or what else it has.
        download: Let torchvision download it.

    Returns:
        Images, read by `open_image` where it has class folders, and class names, where it has some.

    Raises:
        SourceError: There is no such data set, or it cannot be opened.
    """
    kind = getattr(datasets, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, datasets.VisionDataset)):
        raise SourceError(f"torchvision.datasets has no data set {name!r}; accepted: names such as 'CIFAR10'")
    arguments = _arguments(kind, split, download)
    try:
        dataset = kind(root, **arguments)
    except Exception as error:  # whatever a data set raises: it is not this library's
        raise SourceError(
            f"torchvision's {name} cannot be opened in {root!r}: {error}. Give torchvision:{name}:ROOT, "
            "the folder it is in; `d3hr build --download` downloads what torchvision can"
        ) from error
    images = indexed_images(dataset, LABELS)
    images = dataclasses.replace(images, identity=identity_of_pixels(dataset) or images.identity)
    is_folder = issubclass(
        kind, datasets.DatasetFolder
    )  # whose own loader reads any format that Pillow knows
    if is_folder and images.files is not None and images.labels is not None:
        images = dataclasses.replace(images, read=partial(_read_file, images.files, images.labels))
    return images, class_names(dataset)


def _arguments(kind: type, split: str, download: bool) -> dict[str, Any]:
    """Return the arguments of a data set, without its root, as far as it takes them."""
    name, accepted = kind.__name__, inspect.signature(kind).parameters
    if "root" not in accepted:
        raise SourceError(
            f"torchvision's {name} is read from no folder; accepted: those that are, as CIFAR10"
        )
    values: dict[str, Any] = {}
    if "split" in accepted:
        values["split"] = split
    elif "train" in accepted:
        if split not in ("train", "test"):
            raise SourceError(f"torchvision's {name} has splits 'train' and 'test', not {split!r}")
        values["train"] = split == "train"
    if "download" in accepted:
        values["download"] = download
    return values


def _read_file(files: Sequence[str | Path], labels: Sequence[int], number: int) -> tuple[Image.Image, int]:
    return load_image(str(files[number])), labels[number]
