"""Removes files of the image cache, and nothing else.

In: files as they were when they were looked at. Out: freed space.

Between the look and the removal a file may be replaced, or a folder by a link. So each file is compared once
more, in a folder that is opened without following links. A folder goes when nothing is left in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from d3hr_datasets.cache.damage import find_damage
from d3hr_datasets.cache.files import SETTINGS, is_real_folder
from d3hr_datasets.cache.locks import Hold, group_lock
from d3hr_datasets.cache.ownership import OwnFile, OwnSet, group_files, identity, own_files
from d3hr_datasets.cache.uses import unused
from d3hr_datasets.classes.folders import folder_number
from d3hr_datasets.errors import CacheError

_NO_FOLDER = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # missing, or a link or a file by now


@dataclasses.dataclass(frozen=True)
class Part:
    """Files of one folder that go together.

    Attributes:
        folder: The folder; it goes, too, if nothing is left in it.
        files: The files.
        number: Number of the group whose lock is needed, if any.
    """

    folder: Path
    files: tuple[OwnFile, ...]
    number: str | None = None


@dataclasses.dataclass(frozen=True)
class Removal:
    """One thing that goes.

    Attributes:
        path: A set, a group, a leftover, a lock file, or a link to a folder (which stays).
        kind: Which of these; "epoch" is a set of an epoch that goes only while nobody uses it.
        parts: Its files, folder by folder.
        set_name: The set whose locks guard it.
        ipc: Images per class of a damaged group.
    """

    path: Path
    kind: Literal["set", "epoch", "group", "leftover", "lock", "link"]
    parts: tuple[Part, ...]
    set_name: str = ""
    ipc: int | None = None

    @property
    def num_bytes(self) -> int:
        """Size of its files."""
        return sum(file.num_bytes for part in self.parts for file in part.files)


def removal_of_link(path: Path) -> Removal:
    """Return the removal of a link, not of what it leads to."""
    return Removal(path, "link", (Part(path.parent, tuple(own_files(path.parent, [path.name]))),))


def set_parts(found: OwnSet) -> Iterator[Part]:
    """Yield the files of a set, `set.json` last: without it nothing tells what the rest is."""
    for group in found.group_folders():
        yield Part(group, tuple(group_files(group, found.ipc)), folder_number(group.name))
    yield Part(found.folder, tuple(own_files(found.folder, [SETTINGS])))


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing if it is a link or missing."""
    return sorted(folder.iterdir()) if is_real_folder(folder) else []


def remove(root: Path, removal: Removal) -> tuple[int, int]:
    """Remove one thing; return how many files and folders went, and their size."""
    if removal.kind == "lock" and removal.set_name:
        number = removal.parts[0].number
        if number is None:
            with unused(root, removal.set_name) as free:
                return int(free), 0
        with group_lock(root, removal.set_name, number, timeout=0) as hold:
            return int(hold is not Hold.BUSY), 0
    if removal.kind == "epoch":
        with unused(root, removal.set_name) as free:
            return _remove_parts(root, removal) if free else (0, 0)
    return _remove_parts(root, removal)


def _remove_parts(root: Path, removal: Removal) -> tuple[int, int]:
    count = num_bytes = 0
    for part in removal.parts:
        with _held(root, removal.set_name, part.number) as hold:
            if hold is Hold.BUSY:
                if removal.kind == "set":
                    raise busy(removal.set_name, str(part.number))
                if removal.kind == "epoch":  # `set.json` stays for the next attempt
                    break
                continue
            if removal.kind == "group" and not any(find_damage(part.folder, removal.ipc)):
                continue  # another process has mended it
            more, size = remove_files(root, part, with_folder=part.folder.is_relative_to(removal.path))
            count, num_bytes = count + more, num_bytes + size
    return count, num_bytes


def _held(root: Path, set_name: str, number: str | None) -> contextlib.AbstractContextManager[Hold]:
    """Take the lock of a group, of none if no number is given."""
    if number is None:
        return contextlib.nullcontext(Hold.HELD)
    return group_lock(root, set_name, number, timeout=0, keep=True)


def remove_files(root: Path, part: Part, *, with_folder: bool) -> tuple[int, int]:
    """Remove files that are still those of the plan, the first one first, and the folder if it is empty."""
    count = num_bytes = 0
    with _opened(root, part.folder) as folder:
        if folder is None:
            return 0, 0
        for file in part.files:
            with contextlib.suppress(FileNotFoundError):
                if identity(os.stat(file.name, dir_fd=folder, follow_symlinks=False)) == file.identity:
                    os.unlink(file.name, dir_fd=folder)
                    count, num_bytes = count + 1, num_bytes + file.num_bytes
    if with_folder:
        with _opened(root, part.folder.parent) as parent, contextlib.suppress(OSError):
            if parent is not None:
                os.rmdir(part.folder.name, dir_fd=parent)
                count += 1
    return count, num_bytes


@contextlib.contextmanager
def _opened(root: Path, folder: Path) -> Iterator[int | None]:
    """Open a folder below the root without following links; None if there is none."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in folder.relative_to(root).parts:
            try:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError as error:
                if error.errno not in _NO_FOLDER:
                    raise
                yield None
                return
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def in_use(name: str) -> CacheError:
    """Return the error for a set of an epoch that another process uses."""
    return CacheError(
        f"the set {name!r} cannot be removed: another process trains on it, or prepares it for its next "
        "epoch. Wait for that process, or stop it"
    )


def busy(name: str, number: str) -> CacheError:
    """Return the error for a set that another process writes to."""
    return CacheError(
        f"the set {name!r} cannot be removed: another process generates its group {number}. "
        "Wait for that process, or stop it"
    )
