"""The files of the image cache: their names, what is sound, and who may write.

    ROOT/SET/set.json                what the set is: format, images per class, number of groups, settings
    ROOT/SET/CLASS/00000.png ...     one folder per class, in label order: a group
    ROOT/SET/CLASS/group.json        SHA-256 of every image of the group
    ROOT/.partial/                   groups being written
    ROOT/.locks/                     one lock file per group being made

In: folders. Out: what of a group is damaged, and the right to write it.

Locks save work, they do not guard the files: every file gets its name by a rename when it is whole, and
the same settings give the same pixels, so that two processes which write one group do no harm.

- A lock is `flock` on a file in ROOT/.locks. The kernel gives it up when its process dies, however it
  dies. Its file is removed when the group is done.
- On a file system without `flock` (some network file systems) groups are made without a lock, and a warning
  says so. A marker file is no substitute: one that was left by a process killed on another host would
  block for ever.
- Where `flock` holds within one host only (NFS mounted with `nolock` or `local_lock`), two hosts may make the
  same group; the one that comes second keeps what is there.
- A lock that is held for more than `LOCK_TIMEOUT` (a hung process, a file server that remembers a dead
  client) is no longer waited for.

A folder in ROOT/.partial is dead, and may be removed, if its name has this host in it and its group's lock
can be taken (it was written under that lock), or if it has not changed for `LEFTOVER_AGE`.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torchvision.datasets.folder import IMG_EXTENSIONS

from d3hr_datasets.class_folders import folder_number
from d3hr_datasets.errors import CacheError

FORMAT = 1
MANIFEST = "group.json"
SETTINGS = "set.json"
PARTIAL = ".partial"
LOCKS = ".locks"
LOCK_TIMEOUT = 3600.0  # seconds
LEFTOVER_AGE = 24 * 3600.0  # seconds

_UNLOCKED = "_unlocked"  # no host: an underscore does not occur in what `_host` returns
_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}

logger = logging.getLogger(__name__)


class Hold(enum.Enum):
    """What became of taking a lock."""

    HELD = "this process holds it"
    BUSY = "another one does"
    UNSUPPORTED = "the file system has no locks"


def image_name(index: int) -> str:
    """Return the file name of an image of a group."""
    return f"{index:05d}.png"


def group_number(class_folder: str) -> str:
    """Return the number that a class folder begins with; it names the group's lock and partial folders."""
    return folder_number(class_folder)


def read_manifest(folder: Path) -> list[str] | None:
    """Return the SHA-256 of every image of a group, or None if its manifest is missing or damaged.

    Raises:
        CacheError: It is there and cannot be read.
    """
    data = read_bytes(folder / MANIFEST)
    try:
        checksums = json.loads(data)["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(checksums, list) or data != manifest_bytes(checksums):
        return None
    return checksums


def manifest_bytes(checksums: list[str]) -> bytes:
    """Return what the manifest of these images is, byte for byte."""
    return json.dumps({"sha256": checksums}).encode()


def read_bytes(path: Path) -> bytes:
    """Return what a file holds; nothing if it is missing.

    Raises:
        CacheError: It is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise read_error(path, error) from error


def find_damage(folder: Path, ipc: int | None = None) -> Iterator[Path]:
    """Yield the files of a group that are missing, changed, or images too many. Reads every image.

    Files that no image reader looks at (`.DS_Store`) are no damage.

    Args:
        folder: The group.
        ipc: Images it must have; as many as its manifest says by default.

    Raises:
        CacheError: A file cannot be read.
    """
    checksums = read_manifest(folder)
    if checksums is None or len(checksums) != (len(checksums) if ipc is None else ipc):
        yield folder / MANIFEST
        return
    for index, checksum in enumerate(checksums):
        if hashlib.sha256(read_bytes(folder / image_name(index))).hexdigest() != checksum:
            yield folder / image_name(index)
    yield from additional_images(folder, len(checksums))


def additional_images(folder: Path, ipc: int) -> list[Path]:
    """Return the images in a group's folder that an image reader would take for the group's, and are not."""
    expected = {image_name(index) for index in range(ipc)}
    return [path for path in find_images(folder) if path.name not in expected]


def find_images(folder: Path) -> list[Path]:
    """Return the files in a folder that image readers read; none if it is missing.

    Raises:
        CacheError: The folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMG_EXTENSIONS)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise read_error(folder, error) from error


def settings_bytes(ipc: int, num_groups: int, settings: dict[str, Any]) -> bytes:
    """Return what `set.json` is, byte for byte."""
    return _seal({"format": FORMAT, "ipc": ipc, "num_groups": num_groups, "settings": settings})


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the fields of `set.json`, or None if it is missing or damaged.

    Raises:
        CacheError: It is of another format version, or cannot be read.
    """
    data = read_bytes(folder / SETTINGS)
    try:
        document = json.loads(data)
        version = document["format"]
        checksum = document.pop("sha256", None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if data != _seal(document) and (version == FORMAT or checksum is not None):
        return None
    if version != FORMAT:
        raise CacheError(
            f"{folder / SETTINGS} has format {version!r}; this version of d3hr-datasets reads {FORMAT}. "
            f"Use the version that wrote it, remove the set (`d3hr cache prune {folder.name} --root "
            f"{folder.parent}`), or give another `root`"
        )
    return dict(document)


def _seal(document: dict[str, Any]) -> bytes:
    """Return a document with its own SHA-256."""
    checksum = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**document, "sha256": checksum}, sort_keys=True, indent=2) + "\n").encode()


@contextlib.contextmanager
def group_lock(root: Path, set_name: str, number: str, timeout: float) -> Iterator[Hold]:
    """Take the lock of a group, if it can be had in `timeout` seconds, and remove its file in the end.

    Raises:
        CacheError: The cache cannot be written.
    """
    path = root / LOCKS / f"{set_name}.{number}.lock"
    lock = FileLock(path, timeout=timeout, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        hold = Hold.HELD
    except Timeout:
        hold = Hold.BUSY
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise write_error(root, error) from error
        hold = Hold.UNSUPPORTED
    try:
        yield hold
    finally:
        if hold is not Hold.BUSY:
            # Before the release: whoever waits for this file finds it gone and starts with a new one.
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()


def new_partial(root: Path, set_name: str, number: str, hold: Hold) -> Path:
    """Return a name for a folder in which to write a group; no other process has it."""
    owner = _host() if hold is Hold.HELD else _UNLOCKED
    return root / PARTIAL / f"{set_name}.{number}.{owner}.{uuid.uuid4().hex}"


def remove_dead_partials(root: Path, set_name: str, number: str) -> None:
    """Remove what killed processes of this host left of a group. The caller holds the group's lock."""
    for path in list((root / PARTIAL).glob("*")):
        if path.name.startswith(f"{set_name}.{number}.{_host()}."):
            shutil.rmtree(path, ignore_errors=True)


def written_here(partial: Path) -> tuple[str, str] | None:
    """Return set name and group number of a partial folder, if it was written under a lock of this host."""
    parts = partial.name.rsplit(".", 3)
    return (parts[0], parts[1]) if len(parts) == 4 and parts[2] == _host() else None


def is_old(path: Path) -> bool:
    """Say whether a file or folder has not changed for `LEFTOVER_AGE`."""
    return time.time() - path.stat().st_mtime > LEFTOVER_AGE


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and have it on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_error(path: Path, error: OSError) -> CacheError:
    """Return the error for a part of the cache that is there and cannot be read."""
    return CacheError(f"{path} cannot be read: {error}. Make it readable or give another `root`")


def write_error(root: Path, error: OSError) -> CacheError:
    """Return the error for a cache that cannot be written, with what mends it."""
    if error.errno in _NO_SPACE:
        remedy = (
            "Free some space or give another `root`; what was complete is kept, "
            "and generation goes on from there"
        )
    elif error.errno in _READ_ONLY:
        remedy = (
            "What is complete there can be read. To add what is missing, call `dataset.materialize()` "
            "where the cache can be written, or give another `root`"
        )
    else:
        remedy = "Give another `root`, or make this one a folder that can be written"
    return CacheError(f"the cache {root} cannot be written: {error}. {remedy}")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())


def default_root() -> Path:
    """Return the folder of all sets unless another is given: the assets cache of Hugging Face."""
    from huggingface_hub import constants  # `cached_assets_path` makes the folder, this one is only named

    return Path(constants.HF_ASSETS_CACHE) / "d3hr_datasets" / "default" / "images"
