"""What in a folder is the image cache's own: sets, their groups, and the files of these.

In: a folder that may hold anything. Out: what this library has written there, and nothing else.

- A set is a folder whose `set.json` has this library's checksum. Where the file is damaged, the folder counts
  as a set if a group of it is whole: it is shown, but nothing proves its files, and none of them is removed.
- A group is a folder in a set that is named as `set.json` says.
- Its files are `group.json` and `00000.png` to the last image of the set. A link of such a name is one of
  them: what it leads to is not.

A link to a folder is neither a set nor a group.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path
from typing import Any

from d3hr_datasets.cache.damage import read_manifest
from d3hr_datasets.cache.files import MANIFEST, SETTINGS, is_image_name, is_real_folder
from d3hr_datasets.cache.set_json import OtherFormatError, read_settings
from d3hr_datasets.classes.folders import class_folders, is_class_folder
from d3hr_datasets.errors import CacheError


@dataclasses.dataclass(frozen=True)
class OwnFile:
    """A file of the cache, as it was when it was looked at.

    Attributes:
        name: Its name.
        identity: Changes when the file is written again or replaced.
        num_bytes: Its size.
    """

    name: str
    identity: tuple[int, ...]
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class OwnSet:
    """A set in a cache.

    Attributes:
        folder: Its folder.
        settings: The fields of its `set.json`; None if that is damaged or of another format.
        is_proven: Whether `set.json` has its checksum, in this format or another.
    """

    folder: Path
    settings: dict[str, Any] | None
    is_proven: bool

    @property
    def ipc(self) -> int | None:
        """Images per class, None if `set.json` does not tell."""
        return self.settings["ipc"] if self.settings else None

    def groups(self) -> list[Path]:
        """Return the folders of groups of which there is something, in the order of their names."""
        return [path for path in self.group_folders() if group_files(path, self.ipc)]

    def group_folders(self) -> list[Path]:
        """Return the folders that are groups' by name, or by `group.json` where `set.json` does not tell."""
        folders = real_folders(self.folder)
        if self.settings is not None:
            return self._implied(self.settings, folders)
        return [path for path in folders if is_class_folder(path.name) and _has_manifest(path)]

    @staticmethod
    def _implied(settings: dict[str, Any], folders: list[Path]) -> list[Path]:
        """Return the folders that have the names of this set's classes, or their numbers if it names none."""
        count, classes = settings["num_groups"], settings["settings"].get("classes")
        if isinstance(classes, list) and len(classes) == count and all(type(name) is str for name in classes):
            implied = set(class_folders(classes))
            return [path for path in folders if path.name in implied]
        return [path for path in folders if is_class_folder(path.name, count)]


def _has_manifest(folder: Path) -> bool:
    try:
        return read_manifest(folder) is not None
    except CacheError:  # it cannot be read
        return False


def find_sets(root: Path) -> list[OwnSet]:
    """Return the sets of a cache, in the order of their names; none if there is no cache.

    Raises:
        CacheError: The cache cannot be read.
    """
    found = [as_set(path) for path in real_folders(root)]
    return [own for own in found if own is not None]


def as_set(folder: Path) -> OwnSet | None:
    """Return the set that a folder is, or None if nothing tells that it is one."""
    try:
        settings = read_settings(folder)
        proven = settings is not None
    except OtherFormatError as error:
        settings, proven = None, error.sealed
    except CacheError:  # it cannot be read
        settings, proven = None, False
    own = OwnSet(folder, settings, proven)
    return own if proven or (os.path.lexists(folder / SETTINGS) and own.groups()) else None


def real_folders(path: Path) -> list[Path]:
    """Return the folders in a folder in the order of their names, without links and hidden ones.

    Raises:
        CacheError: It cannot be read.
    """
    try:
        with os.scandir(path) as entries:
            names = [
                e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")
            ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error}. Give the folder of a cache as `root`") from error
    return [path / name for name in sorted(names)]


def group_files(folder: Path, ipc: int | None = None) -> list[OwnFile]:
    """Return the files of a group, its manifest first; with images of any number if `ipc` is None."""
    files = [name for name in _names(folder) if is_image_name(name, ipc)]
    return own_files(folder, [MANIFEST, *sorted(files)])


def own_files(folder: Path, names: list[str]) -> list[OwnFile]:
    """Return those of the files that are there: regular ones and links, nothing else of these names."""
    found = []
    for name in names:
        try:
            state = (folder / name).lstat()
        except OSError:
            continue
        if stat.S_ISREG(state.st_mode) or stat.S_ISLNK(state.st_mode):
            found.append(OwnFile(name, identity(state), state.st_size))
    return found


def identity(state: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file from one that replaces it."""
    return state.st_dev, state.st_ino, state.st_mode, state.st_size, state.st_mtime_ns


def _names(folder: Path) -> list[str]:
    """Return the names in a folder, none if it is a link, missing or not to be read."""
    try:
        return os.listdir(folder) if is_real_folder(folder) else []  # noqa: PTH208 (names, no paths)
    except OSError:
        return []
