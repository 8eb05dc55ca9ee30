"""The files of the image cache: their names, and what is sound.

    ROOT/SET/set.json                what the set is: format, images per class, number of groups, settings
    ROOT/SET/CLASS/00000.png ...     one folder per class, in label order: a group
    ROOT/SET/CLASS/group.json        SHA-256 of every image of the group

In: folders. Out: what they hold, and what of it is damaged. `cache_locks` says who may write.

The root may hold anything else, too. Below it, links are never followed, and what is no regular file (a FIFO,
a device) is never opened for longer than it takes to see that: both count as missing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from torchvision.datasets.folder import IMG_EXTENSIONS

from d3hr_datasets.errors import CacheError

FORMAT = 1
MANIFEST = "group.json"
SETTINGS = "set.json"
MAX_IMAGE_BYTES = 2**28  # larger files are not read; a PNG of 8192 x 8192 has less
MAX_JSON_BYTES = 2**25  # of the checksums of 490,000 images

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_FILE = {errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENODEV}  # missing, a link, a socket, a device
_IMAGE = re.compile(r"[0-9]{5,}\.png")
_CHECKSUM = re.compile(r"[0-9a-f]{64}")


def image_name(index: int) -> str:
    """Return the file name of an image of a group."""
    return f"{index:05d}.png"


def is_image_name(name: str, ipc: int | None = None) -> bool:
    """Say whether a group of `ipc` images has a file of this name; of any number by default."""
    if not _IMAGE.fullmatch(name):
        return False
    index = int(name.removesuffix(".png"))
    return image_name(index) == name and (ipc is None or index < ipc)


def is_real_folder(path: Path) -> bool:
    """Say whether there is a folder at a path, and no link to one.

    Raises:
        CacheError: It cannot be told.
    """
    return stat.S_ISDIR(_mode(path))


def check_real_folder(path: Path) -> None:
    """Check that what is at a path, if anything, is a folder that the cache may write to.

    Raises:
        CacheError: It is a link or something else.
    """
    mode = _mode(path)
    if mode and not stat.S_ISDIR(mode):
        raise CacheError(
            f"{path} is {'a link' if stat.S_ISLNK(mode) else 'no folder'}; the cache writes to folders of "
            "its own and follows no links. Move it away or give another `root`"
        )


def replace_own(path: Path, target: Path) -> None:
    """Give a file its place in the cache, which is free or has a file, or a link, of the same name.

    Raises:
        CacheError: Something else is there.
    """
    mode = _mode(target)
    if mode and not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise CacheError(f"{target} is no file, and the cache needs this name for one; move it away")
    path.replace(target)


def _mode(path: Path) -> int:
    """Return what is at a path, links not followed; 0 if there is nothing."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise read_error(path, error) from error


def open_file(path: str | Path) -> BinaryIO | None:
    """Open a file of the cache; None if it is missing, a link, a FIFO, a socket or a device.

    Raises:
        OSError: It is there and cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return None


def read_bytes(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Return what a file holds; nothing if there is none (as `open_file` says), or a larger one.

    Raises:
        CacheError: It is there and cannot be read.
    """
    try:
        file = open_file(path)
        if file is None:
            return b""
        with file:
            return b"" if os.fstat(file.fileno()).st_size > limit else file.read(limit)
    except OSError as error:
        raise read_error(path, error) from error


def read_manifest(folder: Path) -> list[str] | None:
    """Return the SHA-256 of every image of a group, or None if its manifest is missing or damaged.

    Raises:
        CacheError: It is there and cannot be read.
    """
    if not is_real_folder(folder):
        return None
    data = read_bytes(folder / MANIFEST)
    try:
        checksums = json.loads(data)["sha256"]
        if not isinstance(checksums, list) or not checksums or data != manifest_bytes(checksums):
            return None
        if not all(map(_CHECKSUM.fullmatch, checksums)):
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return checksums


def manifest_bytes(checksums: list[str]) -> bytes:
    """Return what the manifest of these images is, byte for byte."""
    return json.dumps({"sha256": checksums}).encode()


def find_damage(folder: Path, ipc: int | None = None) -> Iterator[Path]:
    """Yield the files of a group that are missing or changed. Reads every image, and no other files.

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
        data = read_bytes(folder / image_name(index), MAX_IMAGE_BYTES)
        if hashlib.sha256(data).hexdigest() != checksum:
            yield folder / image_name(index)


def additional_images(folder: Path, ipc: int) -> list[Path]:
    """Return the images in a group's folder that an image reader would take for the group's, and are not.

    Files that no image reader looks at (`.DS_Store`) are none of them.

    Raises:
        CacheError: The folder cannot be read.
    """
    try:
        images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMG_EXTENSIONS)
        return [path for path in images if not is_image_name(path.name, ipc)]
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
        sealed = data == _seal(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not sealed and (version == FORMAT or checksum is not None):
        return None
    if version != FORMAT:
        raise OtherFormatError(
            f"{folder / SETTINGS} has format {version!r:.80}; this version of d3hr-datasets reads {FORMAT}. "
            f"Use the version that wrote it, remove the set (`d3hr cache prune {folder.name} --root "
            f"{folder.parent}`), or give another `root`",
            sealed=sealed,
        )
    return dict(document) if _has_fields(document) else None


class OtherFormatError(CacheError):
    """A set is of another format.

    Attributes:
        sealed: Whether its `set.json` has the checksum that this library gives to every format.
    """

    def __init__(self, message: str, *, sealed: bool) -> None:
        super().__init__(message)
        self.sealed = sealed


def _has_fields(document: dict[str, Any]) -> bool:
    """Say whether a document of this format holds what `settings_bytes` writes."""
    numbers = [document.get("ipc"), document.get("num_groups")]
    return (
        document.keys() == {"format", "ipc", "num_groups", "settings"}
        and all(type(number) is int and number > 0 for number in numbers)
        and isinstance(document["settings"], dict)
    )


def _seal(document: dict[str, Any]) -> bytes:
    """Return a document with its own SHA-256."""
    checksum = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**document, "sha256": checksum}, sort_keys=True, indent=2) + "\n").encode()


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


def default_root() -> Path:
    """Return the folder of all sets unless another is given: the assets cache of Hugging Face."""
    from huggingface_hub import constants  # `cached_assets_path` makes the folder, this one is only named

    return Path(constants.HF_ASSETS_CACHE) / "d3hr_datasets" / "default" / "images"
