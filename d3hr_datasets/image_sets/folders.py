"""Where images of a set are on this machine or the Hub -> a source that is open, whose labels are its own.

In: what a user calls the set. Out: `OpenedSource`. A folder may be

- an export of this library: an image folder, Parquet, or WebDataset shards with `_info.json`
- a set in the cache of this library
- any folder with one folder per class, or with splits ("train", "test") that have those
- any folder of Parquet or tar files, as the library `datasets` reads it
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.errors import ArtifactFormatError, SourceError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import is_file, is_folder, read_json
from d3hr_datasets.sources.huggingface import FILES
from d3hr_datasets.sources.opening import OpenedSource, SourceOptions, open_source

FORMS = (
    "a folder with one folder per class; Parquet (a folder, a file, 'hfds/FOLDER' or 'hfds/ORG/NAME'); "
    "WebDataset shards; 'torchvision:NAME[:ROOT]'; 'datasets:NAME_OR_FOLDER'; a .pt, .pth or .safetensors "
    "file of tensors"
)
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
SHARD_INFO = "_info.json"  # what the export as WebDataset shards writes beside them
_HFDS = "hfds/"  # timm's name for what `datasets` reads


def open_set(where: str, options: SourceOptions, real: ClassList) -> OpenedSource:
    """Open a set of images that is no file of tensors.

    Args:
        where: One of `FORMS`.
        options: Split, and columns of Parquet.
        real: Classes of the real data set: a folder "train" may be one of them.

    Raises:
        SourceError: There is no such set, or it cannot be opened.
    """
    if where.startswith(_HFDS):
        return open_source(f"datasets:{where.removeprefix(_HFDS)}", options)
    if where.startswith(("torchvision:", "datasets:")):
        return open_source(where, options)
    path = expand_user(where)
    if is_file(path) and path.suffix in FILES:
        return open_source(f"datasets:{path}", options)
    if not is_folder(path):
        raise SourceError(f"there is no set of images {where!r:.300}; accepted: {FORMS}")
    try:
        return _open_folder(path, options, real)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}; make it readable") from error


def _open_folder(path: Path, options: SourceOptions, real: ClassList) -> OpenedSource:
    if is_file(path / SHARD_INFO):
        return dataclasses.replace(open_source(f"datasets:{path}", options), classes=_shard_classes(path))
    with os.scandir(path) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir())
    if any(
        file.suffix in FILES
        for place in (path, path / "data")
        if is_folder(place)
        for file in place.iterdir()
    ):
        return open_source(f"datasets:{path}", options)
    if folders and set(folders) <= SPLITS and any(real.find_folder(name) is None for name in folders):
        if options.split not in folders:
            raise SourceError(
                f"{path} has the splits {folders}, not {options.split!r}; give one of these as split"
            )
        return open_source(path / options.split, options)
    if not folders:
        raise SourceError(
            f"{path} has no folders; accepted: one folder per class, Parquet or tar files. Put the images of "
            "each class into a folder with its name"
        )
    return open_source(path, options)


def _shard_classes(folder: Path) -> tuple[str, ...] | None:
    """Return the class names of shards by label; None where nothing says them, as other writers do."""
    try:
        classes = read_json(folder / SHARD_INFO).get("classes")
    except ArtifactFormatError as error:
        raise SourceError(f"{error}. Or remove the file, if labels are those of the real data set") from error
    if classes is None:
        return None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise SourceError(f"{folder / SHARD_INFO}: classes is no list of names; export the shards again")
    return tuple(classes)
