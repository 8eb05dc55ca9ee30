"""Looking after the image cache: which sets there are, what is damaged, what can go.

In: the root of a cache. Out: descriptions, damaged files, and freed space. Other processes may read and
generate meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d3hr_datasets.cache_files import (
    LOCKS,
    MANIFEST,
    PARTIAL,
    SETTINGS,
    Hold,
    find_damage,
    find_images,
    group_lock,
    group_number,
    image_name,
    is_old,
    new_partial,
    read_manifest,
    read_settings,
    write_error,
    written_here,
)
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
        num_images: Image files.
        num_bytes: Size of all files.
    """

    name: str
    folder: Path
    settings: dict[str, Any]
    num_groups: int
    num_complete_groups: int
    num_images: int
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class PruneReport:
    """What was removed from a cache.

    Attributes:
        removed: Sets, groups, leftovers and lock files that are gone.
        num_bytes: Size of their files.
    """

    removed: tuple[Path, ...]
    num_bytes: int


def list_cached_sets(root: Path) -> list[CachedSet]:
    """Describe the sets of a cache, in the order of their names; none if there is no cache.

    Raises:
        CacheError: The cache cannot be read.
    """
    return [_describe(folder) for folder in _set_folders(root)]


def verify_cached_set(root: Path, name: str) -> list[Path]:
    """Read every file of a set and return those that are missing from a group, changed, or too many.

    An empty list means that the set is sound. Groups that were not generated yet are no damage, nor
    are those that another process is writing at the moment.

    Args:
        root: Folder of all sets.
        name: Name of the set.

    Raises:
        CacheError: There is no such set, it is of another format, or it cannot be read.
    """
    folder = _find_set(root, name)
    settings = read_settings(folder)
    damaged = [folder / SETTINGS] if settings is None and (folder / SETTINGS).exists() else []
    ipc = settings["ipc"] if settings else None
    for group in _group_folders(folder):
        found = list(find_damage(group, ipc))
        if found and os.access(root, os.W_OK):
            with group_lock(root, name, group_number(group.name), timeout=0) as hold:
                found = [] if hold is Hold.BUSY else list(find_damage(group, ipc))
        damaged += found
    return damaged


def prune_cache(root: Path, names: Sequence[str] = (), *, damaged: bool = False) -> PruneReport:
    """Remove leftovers of killed processes and unused lock files; on request also sets and damaged groups.

    Args:
        root: Folder of all sets.
        names: Sets to remove, whatever is in their folders.
        damaged: Also remove the damaged groups of the other sets, and a damaged `set.json`. What they need
            is generated again when it is asked for. Sets of another format are left alone.

    Returns:
        What was removed.

    Raises:
        CacheError: There is no set of that name, another process is generating it, or the cache cannot be
            written.
    """
    for name in names:
        _find_set(root, name)
    removed: dict[Path, int] = {}
    try:
        for name in dict.fromkeys(names):
            removed |= _remove_set(root, name)
        if damaged:
            for folder in _set_folders(root):
                removed |= _remove_damaged(root, folder)
        removed |= _remove_leftovers(root)
    except OSError as error:
        raise write_error(root, error) from error
    return PruneReport(tuple(removed), sum(removed.values()))


def _describe(folder: Path) -> CachedSet:
    groups = _group_folders(folder)
    settings = None
    complete = []
    with contextlib.suppress(CacheError):  # of another format: nothing in it counts as complete
        settings = read_settings(folder)
        complete = [group for group in groups if _has_all_files(group)]
    return CachedSet(
        name=folder.name,
        folder=folder,
        settings=settings["settings"] if settings else {},
        num_groups=settings["num_groups"] if settings else len(groups),
        num_complete_groups=len(complete),
        num_images=sum(len(find_images(group)) for group in groups),
        num_bytes=_size(folder),
    )


def _has_all_files(group: Path) -> bool:
    checksums = read_manifest(group)
    return checksums is not None and all(
        (group / image_name(index)).is_file() for index in range(len(checksums))
    )


def _set_folders(root: Path) -> list[Path]:
    """Return the folders in a cache that are sets; other folders may lie beside them."""
    return [path for path in _folders(root) if (path / SETTINGS).exists() or _group_folders(path)]


def _group_folders(folder: Path) -> list[Path]:
    """Return the folders in a set that hold something of a group."""
    return [
        path
        for path in _folders(folder)
        if group_number(path.name).isdecimal() and ((path / MANIFEST).exists() or find_images(path))
    ]


def _folders(path: Path) -> list[Path]:
    """Return the folders in a folder in the order of their names, none if it is missing."""
    try:
        return sorted(found for found in path.iterdir() if found.is_dir() and not found.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error}. Give the folder of a cache as `root`") from error


def _find_set(root: Path, name: str) -> Path:
    folders = {folder.name: folder for folder in _set_folders(root)}
    if name not in folders:
        raise CacheError(f"the cache {root} has no set {name!r}; it has {list(folders)}")
    return folders[name]


def _remove_set(root: Path, name: str) -> dict[Path, int]:
    for path in (root / LOCKS).glob("*.lock"):
        set_name, number = _locked(path)
        if set_name == name:
            with group_lock(root, name, number, timeout=0) as hold:
                if hold is Hold.BUSY:
                    raise CacheError(
                        f"the set {name!r} cannot be removed: another process generates its group {number}. "
                        "Wait for that process, or stop it"
                    )
    folder = root / name
    size = _size(folder)
    with group_lock(root, name, "removed", timeout=0) as hold:
        condemned = new_partial(root, name, "removed", hold)
        condemned.parent.mkdir(exist_ok=True)
        folder.rename(condemned)  # the whole set at once: no reader finds half of a group
        shutil.rmtree(condemned)
    return {folder: size}


def _remove_damaged(root: Path, folder: Path) -> dict[Path, int]:
    removed: dict[Path, int] = {}
    try:
        settings = read_settings(folder)
    except CacheError:  # of another format
        return removed
    if settings is None and (folder / SETTINGS).exists():
        removed |= _remove(folder / SETTINGS)
    ipc = settings["ipc"] if settings else None
    for group in _group_folders(folder):
        if not any(find_damage(group, ipc)):
            continue
        with group_lock(root, folder.name, group_number(group.name), timeout=0) as hold:
            if hold is not Hold.BUSY and any(find_damage(group, ipc)):
                removed[group] = _remove_group(group)
    return removed


def _remove_group(group: Path) -> int:
    """Remove what belongs to a group, the manifest first; the folder stays if something else is in it."""
    size = sum(sum(_remove(path).values()) for path in [group / MANIFEST, *find_images(group)])
    with contextlib.suppress(OSError):
        group.rmdir()
    return size


def _remove_leftovers(root: Path) -> dict[Path, int]:
    removed: dict[Path, int] = {}
    for path in sorted((root / PARTIAL).glob("*")):
        writer = written_here(path)
        if writer is None:
            hold = Hold.UNSUPPORTED
        else:
            with group_lock(root, *writer, timeout=0) as hold:
                if hold is Hold.HELD:
                    removed |= _remove(path)
        if hold is Hold.UNSUPPORTED and is_old(path):
            removed |= _remove(path)
    for path in sorted((root / LOCKS).glob("*.lock")):
        with group_lock(root, *_locked(path), timeout=0) as hold:  # removes the file when it ends
            if hold is not Hold.BUSY:
                removed[path] = 0
    return removed


def _locked(lock_file: Path) -> tuple[str, str]:
    """Return set name and group number of a lock file."""
    set_name, _, number = lock_file.name.removesuffix(".lock").rpartition(".")
    return set_name, number


def _remove(path: Path) -> dict[Path, int]:
    """Remove a file or folder; return it with its size, or nothing if another process was faster."""
    size = _size(path)
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return {}
    return {path: size}


def _size(path: Path) -> int:
    """Return the size of a file, or of all files in a folder; what vanishes meanwhile counts nothing."""
    size = 0
    for file in [path, *path.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):
            size += 0 if file.is_dir() else file.stat().st_size
    return size
