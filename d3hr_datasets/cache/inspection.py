"""Looking at the image cache: which sets there are, and what is damaged. Nothing is changed.

In: the root of a cache, which may hold anything else, too. Out: descriptions, and damaged files. Other
processes may read and generate meanwhile.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from d3hr_datasets.cache.damage import additional_images, find_damage, read_manifest
from d3hr_datasets.cache.epoch_sets import epoch_of
from d3hr_datasets.cache.files import SETTINGS, is_image_name
from d3hr_datasets.cache.locks import Hold, group_lock
from d3hr_datasets.cache.ownership import OwnSet, find_sets, group_files, own_files
from d3hr_datasets.cache.set_json import read_settings
from d3hr_datasets.classes.folders import folder_number
from d3hr_datasets.errors import CacheError


@dataclasses.dataclass(frozen=True)
class CachedSet:
    """What a cache holds of one generated set.

    Attributes:
        name: Name of its folder.
        folder: The folder, as any ImageFolder reader opens it.
        settings: What it was generated with; empty if its `set.json` cannot be used.
        num_groups: Classes of the set, or those found if `set.json` does not tell.
        num_complete_groups: Those that have all their files; `verify_cached_set` also reads them.
        num_images: Its image files.
        num_bytes: Size of its files.
    """

    name: str
    folder: Path
    settings: dict[str, Any]
    num_groups: int
    num_complete_groups: int
    num_images: int
    num_bytes: int

    @property
    def epoch(self) -> int | None:
        """The epoch that the set was made for (`resample="epoch"`); None of a set that was asked for."""
        return epoch_of(self.settings)


def list_cached_sets(root: Path) -> list[CachedSet]:
    """Describe the sets of a cache, in the order of their names; none if there is no cache.

    A set is a folder, no link, whose `set.json` this library has written; everything else is passed over.

    Raises:
        CacheError: The cache cannot be read.
    """
    return [_describe(found) for found in find_sets(root)]


def verify_cached_set(root: Path, name: str) -> list[Path]:
    """Read every file of a set and return those that are missing from a group, changed, or too many.

    An empty list means that the set is sound. Groups that were not generated yet are no damage, nor
    are those that another process is writing at the moment. Images in a class folder that are not the set's
    are named (`ImageFolder` would read them as the set's), not read.

    Args:
        root: Folder of all sets.
        name: Name of the set.

    Raises:
        CacheError: There is no such set, it is of another format, or it cannot be read.
    """
    found = find_set(root, name)
    read_settings(found.folder)  # of another format: an error
    damaged = [] if found.settings else [found.folder / SETTINGS]
    for group in found.groups():
        files = _damage(group, found.ipc)
        if files and os.access(root, os.W_OK):
            is_written = _is_written(root, name, folder_number(group.name))
            files = [] if is_written else _damage(group, found.ipc)
        damaged += files
    return damaged


def find_set(root: Path, name: str) -> OwnSet:
    """Return the set of a name.

    Raises:
        CacheError: There is none.
    """
    sets = {found.folder.name: found for found in find_sets(root)}
    if name not in sets:
        raise CacheError(f"the cache {root} has no set {name!r}; it has {list(sets)}")
    return sets[name]


def _is_written(root: Path, name: str, number: str) -> bool:
    """Say whether another process writes a group."""
    try:
        with group_lock(root, name, number, timeout=0, keep=True) as hold:
            return hold is Hold.BUSY
    except CacheError:  # no lock can be had here: nobody has one
        return False


def _damage(group: Path, ipc: int | None) -> list[Path]:
    if ipc is None:
        ipc = len(read_manifest(group) or ())
    return [*find_damage(group, ipc), *additional_images(group, ipc)]


def _describe(found: OwnSet) -> CachedSet:
    groups = found.groups()
    files = {group: group_files(group, found.ipc) for group in groups}
    complete = [group for group in groups if found.settings and _has_all_files(group, found.settings["ipc"])]
    images = [file for group in groups for file in files[group] if is_image_name(file.name)]
    sizes = [file.num_bytes for group in groups for file in files[group]]
    sizes += [file.num_bytes for file in own_files(found.folder, [SETTINGS])]
    return CachedSet(
        name=found.folder.name,
        folder=found.folder,
        settings=found.settings["settings"] if found.settings else {},
        num_groups=found.settings["num_groups"] if found.settings else len(groups),
        num_complete_groups=len(complete),
        num_images=len(images),
        num_bytes=sum(sizes),
    )


def _has_all_files(group: Path, ipc: int) -> bool:
    try:
        checksums = read_manifest(group)
    except CacheError:  # something else bears its name, or it is somebody else's
        return False
    return checksums is not None and len(checksums) == ipc and len(group_files(group, ipc)) == ipc + 1
