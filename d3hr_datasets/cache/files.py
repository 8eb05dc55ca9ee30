"""The files of the image cache: their names, and how they are opened.

    ROOT/SET/set.json                what the set is: format, images per class, number of groups, settings
    ROOT/SET/CLASS/00000.png ...     one folder per class, in label order: a group
    ROOT/SET/CLASS/group.json        SHA-256 of every image of the group

In: paths. Out: what is there, if it is the cache's. `damage` says what of a group is sound, `set_file` what
`set.json` holds, `locks` who may write.

The root may hold anything else, too. Below it, links are never followed, and what is no regular file (a FIFO,
a device) is never opened for longer than it takes to see that: both count as missing.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from d3hr_datasets.errors import CacheError

MANIFEST = "group.json"
SETTINGS = "set.json"
MAX_IMAGE_BYTES = 2**28  # larger files are not read; a PNG of 8192 x 8192 has less
MAX_JSON_BYTES = 2**25  # of the checksums of 490,000 images

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_FILE = {errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENODEV}  # missing, a link, a socket, a device
_IMAGE = re.compile(r"[0-9]{5,}\.png")


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
