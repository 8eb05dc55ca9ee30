"""Where real images come from: an image folder, a torchvision data set, or one of `datasets`.

In: "FOLDER", "torchvision:NAME:ROOT" or "datasets:NAME". Out: a source for `build_artifact` whose labels are
those of the source, and `relabel`, which makes them the model's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d3hr_datasets.errors import SourceError
from d3hr_datasets.io.foreign import is_folder
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.sources.huggingface import open_dataset
from d3hr_datasets.sources.image_folders import load_image, open_image_folder
from d3hr_datasets.sources.records import ImageSource, ImageStream

FORMS = "a folder with one folder per class, 'torchvision:NAME[:ROOT]', or 'datasets:NAME_OR_FOLDER'"
ROOT = "data"  # of torchvision's data sets, unless another is given


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """How to open a source.

    Args:
        split: Split of a torchvision data set ("train", "test", ...) or of one of `datasets`.
        download: Let torchvision download it.
        streaming: Read a data set of `datasets` without storing it.
        image_column: Its column of images, if there is more than one.
        label_column: Its column of labels, if it is not the only one of classes.
    """

    split: str = "train"
    download: bool = False
    streaming: bool = False
    image_column: str | None = None
    label_column: str | None = None


DEFAULT = SourceOptions()


@dataclasses.dataclass(frozen=True)
class OpenedSource:
    """A source and what is known of it.

    Args:
        images: With the source's own labels.
        classes: Names in the order of the labels; None where labels are strings, or numbers without names.
        description: For `ArtifactInfo.source`.
    """

    images: ImageSource | ImageStream
    classes: tuple[str, ...] | None
    description: dict[str, Any]


def open_source(where: str, options: SourceOptions = DEFAULT) -> OpenedSource:
    """Open a source.

    Args:
        where: A folder with one folder per class; "torchvision:NAME", whose files are in "data", or
            "torchvision:NAME:ROOT"; or "datasets:" and a name on the Hub (with "@REVISION" if wished), a
            folder, or a Parquet or tar file.
        options: How.

    Raises:
        SourceError: There is no such source, it cannot be opened, or its columns are not clear.
    """
    kind, _, name = where.partition(":")
    if kind == "torchvision" and name:
        name, _, root = name.partition(":")
        return _open_torchvision(name, root or ROOT, options)
    if kind == "datasets" and name:
        return OpenedSource(
            *open_dataset(name, options.split, options.streaming, options.image_column, options.label_column)
        )
    folder = expand_user(where)
    if not is_folder(folder):
        raise SourceError(f"there is no folder {where!r:.300} of images; accepted: {FORMS}")
    return _open_folder(folder)


def _open_folder(folder: Path) -> OpenedSource:
    images = open_image_folder(folder)
    return OpenedSource(images, tuple(images.classes), {"name": folder.resolve().name})


def targets_of(images: Any) -> list[int] | None:
    """Return the labels of a torchvision data set, which has them under one of several names; None if not."""
    for attribute in ("targets", "labels", "_labels"):
        targets = getattr(images, attribute, None)
        if targets is not None and len(targets) == len(images):
            return [int(target) for target in targets]
    return None


def _open_torchvision(name: str, root: str, options: SourceOptions) -> OpenedSource:
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, datasets.VisionDataset)):
        raise SourceError(f"torchvision.datasets has no data set {name!r}; accepted: names such as 'CIFAR10'")
    arguments = inspect.signature(kind.__init__).parameters
    if "root" not in arguments:
        raise SourceError(
            f"torchvision's {name} is read from no folder; accepted: those that are, as CIFAR10"
        )
    values: dict[str, Any] = {}
    if "split" in arguments:
        values["split"] = options.split
    elif "train" in arguments:
        if options.split not in ("train", "test"):
            raise SourceError(f"torchvision's {name} has splits 'train' and 'test', not {options.split!r}")
        values["train"] = options.split == "train"
    if "download" in arguments:
        values["download"] = options.download
    try:
        images: Any = kind(root, **values)
    except Exception as error:  # whatever a data set raises: it is not this library's
        raise SourceError(
            f"torchvision's {name} cannot be opened in {root!r}: {error}. Give torchvision:{name}:ROOT, "
            "the folder it is in; `d3hr build --download` downloads what torchvision can"
        ) from error
    if isinstance(images, datasets.DatasetFolder):
        images.loader = load_image
    # ImageNet's classes are tuples of names, which two cranes share; its WordNet IDs tell all apart.
    classes = getattr(images, "wnids", None) or getattr(images, "classes", None) or ()
    named = len(classes) > 0 and all(isinstance(entry, str) for entry in classes)
    targets = targets_of(images)
    if targets is not None:
        images.targets = targets
    pixels = getattr(images, "data", None)
    if isinstance(pixels, torch.Tensor | np.ndarray):
        images.identity = hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
    return OpenedSource(images, tuple(classes) if named else None, {"name": name, "split": options.split})
