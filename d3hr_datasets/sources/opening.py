"""Where real images come from: an image folder, a data set of torchvision, of `datasets`, or anyone's own.

In: "FOLDER", "torchvision:NAME:ROOT", "datasets:NAME", or a data set that is open. Out: images whose labels
are those of the source; `relabel` makes them the model's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torchvision.datasets import DatasetFolder

from d3hr_datasets.errors import SourceError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import is_folder
from d3hr_datasets.sources.huggingface import open_dataset
from d3hr_datasets.sources.image_folders import open_image_folder
from d3hr_datasets.sources.records import Images
from d3hr_datasets.sources.torchvision_datasets import open_torchvision
from d3hr_datasets.sources.user_datasets import (
    LABELS,
    ImageStream,
    TorchvisionLike,
    as_images,
    class_names,
)

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
        occurring: Whether `classes` are those that occur, as names of folders: other images may have others.
    """

    images: Images
    classes: tuple[str, ...] | None
    description: dict[str, Any]
    occurring: bool = False


def folder_of(name: str) -> Path | None:
    """Return the folder that a source of this name is read from; None where it is none of this machine."""
    kind, _, rest = name.partition(":")
    if kind == "torchvision" and rest:
        rest = rest.partition(":")[2] or ROOT
    elif kind != "datasets" or not rest:
        rest = name
    folder = expand_user(rest)
    return folder if is_folder(folder) else None


def open_source(
    where: str | Path | TorchvisionLike | ImageStream,
    options: SourceOptions = DEFAULT,
    allow_empty: bool = False,
) -> OpenedSource:
    """Open a source.

    Args:
        where: A folder with one folder per class; "torchvision:NAME", whose files are in "data", or
            "torchvision:NAME:ROOT"; or "datasets:" and a name on the Hub (with "@REVISION" if wished), a
            folder, or a Parquet or tar file. A data set of (PIL image, label) is taken as it is.
        options: How to open it, where it is not open.
        allow_empty: Take a class folder without images for a class.

    Raises:
        SourceError: There is no such source, it cannot be opened, or its columns are not clear.
        ConfigError: It is neither a name nor a data set.
    """
    if not isinstance(where, str | Path):
        occurring = isinstance(where, DatasetFolder)
        found = class_names(where)
        return OpenedSource(as_images(where, LABELS), found, {"name": type(where).__name__}, occurring)
    kind, _, name = str(where).partition(":")
    if kind == "torchvision" and name:
        name, _, root = name.partition(":")
        opened = open_torchvision(name, root or ROOT, options.split, options.download)
        return OpenedSource(*opened, {"name": name, "split": options.split})
    if kind == "datasets" and name:
        return OpenedSource(
            *open_dataset(name, options.split, options.streaming, options.image_column, options.label_column)
        )
    folder = expand_user(where)
    if not is_folder(folder):
        raise SourceError(f"there is no folder {str(where)!r:.300} of images; accepted: {FORMS}")
    return OpenedSource(*open_image_folder(folder, allow_empty), {"name": folder.resolve().name}, True)


def is_same_source(first: object, second: object) -> bool:
    """Whether two sources are the same images, as far as their names tell: the same folder or object.

    Names of data sets that have splits are not: the splits may differ.
    """
    if not (isinstance(first, str | Path) and isinstance(second, str | Path)):
        return first is second
    folders = []
    for where in (first, second):
        kind, _, name = str(where).partition(":")
        if kind in ("torchvision", "datasets") and name:
            return False
        folders.append(expand_user(where).resolve())
    return folders[0] == folders[1]
