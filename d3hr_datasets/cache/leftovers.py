"""What killed processes left of the groups that they wrote: ROOT/.partial -> what may be removed of it.

A folder there is dead, and may be removed, if its name has this host in it and its group's lock can be taken
(it was written under that lock), or if it has not changed for `LEFTOVER_AGE`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from d3hr_datasets.cache.files import SETTINGS, is_real_folder
from d3hr_datasets.cache.locks import LOCKS, PARTIAL, Hold, group_lock, written_by
from d3hr_datasets.cache.ownership import group_files, own_files, real_folders
from d3hr_datasets.cache.removal import Part, Removal, entries, removal_of_link, remove_files

LEFTOVER_AGE = 24 * 3600.0  # seconds


def find_leftovers(root: Path) -> Iterator[Removal]:
    """Yield the removals of what is dead in `.partial`."""
    for path in entries(root / PARTIAL):
        removal = _removal(path)
        if removal.parts and written_by(path) is not None and _is_dead(root, path):
            yield removal


def remove_dead_partials(root: Path, set_name: str, number: str) -> None:
    """Remove what killed processes of this host left of a group. The caller holds the group's lock."""
    for path in entries(root / PARTIAL):
        if written_by(path) == (set_name, number, True):
            for part in _removal(path).parts:
                with contextlib.suppress(OSError):
                    remove_files(root, part, with_folder=part.folder.is_relative_to(path))


def _removal(path: Path) -> Removal:
    """Return the removal of what a killed process left in `.partial`."""
    if path.is_symlink():
        return dataclasses.replace(removal_of_link(path), kind="leftover")
    if not is_real_folder(path):
        return Removal(path, "leftover", ())
    inner = [Part(folder, tuple(group_files(folder))) for folder in real_folders(path)]
    files = [*group_files(path), *own_files(path, [SETTINGS])]
    return Removal(path, "leftover", (*inner, Part(path, tuple(files))))


def _is_dead(root: Path, partial: Path) -> bool:
    """Say whether nobody writes to a folder in `.partial` any more."""
    set_name, number, here = written_by(partial) or ("", "", False)
    if here and not (root / LOCKS).is_symlink():
        with group_lock(root, set_name, number, timeout=0, keep=True) as hold:
            if hold is not Hold.UNSUPPORTED:
                return hold is Hold.HELD
    return _is_old(partial)


def _is_old(path: Path) -> bool:
    """Say whether a file or folder has not changed for `LEFTOVER_AGE`."""
    return time.time() - path.lstat().st_mtime > LEFTOVER_AGE
