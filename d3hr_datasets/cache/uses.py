"""Which sets of the image cache are in use, of those that go when nobody uses them (`epoch_sets`).

    ROOT/.locks/SET.use    an empty file; every process that uses SET shares its `flock`

In: the root of a cache and a set. Out: its use, or leave to remove it, which nobody has while another process
uses it. The kernel ends the use of a process that dies, however it dies.

- Without `flock`, nobody can tell what others use: nothing is removed, and a warning says so.
- Where `flock` holds within one host only, a set may be removed that another host reads. It makes again what
  it misses.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from d3hr_datasets.cache.files import check_real_folder, write_error
from d3hr_datasets.cache.locks import LOCK_TIMEOUT, LOCKS, NO_FLOCK, may_be_lock
from d3hr_datasets.errors import CacheError

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}  # what is complete there can be read
_USE = re.compile(r"(?P<name>.+)\.use")
_PAUSE = 0.02  # seconds between attempts

logger = logging.getLogger(__name__)


class SetUse:
    """The use of a set by this process, until `end`, or until the process ends.

    Args:
        root: Folder of all sets.
        set_name: The set.

    Raises:
        CacheError: The cache cannot be written, or something else has the name of the lock file.
    """

    def __init__(self, root: Path, set_name: str) -> None:
        path = _path(root, set_name)
        self._end: weakref.finalize[..., SetUse] | None = None
        try:
            descriptor = _locked(path, fcntl.LOCK_SH, LOCK_TIMEOUT)
        except OSError as error:
            if error.errno in NO_FLOCK:
                logger.warning("%s cannot be locked: sets of earlier epochs stay in %s", set_name, root)
            elif error.errno not in _READ_ONLY:
                raise write_error(root, error) from error
        else:
            if descriptor is not None:
                self._end = weakref.finalize(self, _end, descriptor, path, os.getpid())

    def end(self) -> None:
        """End the use. Does nothing in a forked process: there it is the parent's."""
        if self._end is not None:
            self._end()


def _end(descriptor: int, path: Path, owner: int) -> None:
    if os.getpid() != owner:
        os.close(descriptor)
        return
    with contextlib.suppress(OSError):  # another process uses it, and will remove the file
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _unlink(descriptor, path)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also where forked processes have it open
    os.close(descriptor)


@contextlib.contextmanager
def unused(root: Path, set_name: str, *, keep: bool = False) -> Iterator[bool]:
    """Yield whether nobody uses a set; nobody can begin to before the end.

    Args:
        root: Folder of all sets.
        set_name: The set.
        keep: Leave a lock file that was there before.
    """
    path = _path(root, set_name)
    keep = keep and os.path.lexists(path)
    try:
        descriptor = _locked(path, fcntl.LOCK_EX, 0)
    except (OSError, CacheError):
        descriptor = None
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            if not keep:
                _unlink(descriptor, path)
            os.close(descriptor)


def used_by(path: Path) -> str | None:
    """Return the set whose use a file in `.locks` is for, or None if it is no such file."""
    match = _USE.fullmatch(path.name)
    return match["name"] if match and not path.is_symlink() and may_be_lock(path) else None


def _path(root: Path, set_name: str) -> Path:
    return root / LOCKS / f"{set_name}.use"


def _locked(path: Path, kind: int, timeout: float) -> int | None:
    """Return a descriptor of the file that holds the lock; None if it cannot be had in `timeout` seconds."""
    check_real_folder(path.parent)
    if not may_be_lock(path):
        raise CacheError(f"{path} is no lock file of the cache; move it away or give another `root`")
    end = time.monotonic() + timeout
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
            os.close(descriptor)  # another process has removed the file: lock the one that is there now
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() >= end:
                return None
            time.sleep(_PAUSE)
        except BaseException:
            os.close(descriptor)
            raise


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _unlink(descriptor: int, path: Path) -> None:
    """Remove the lock file, whose lock the caller has alone: whoever waits starts with a new one."""
    with contextlib.suppress(OSError):
        if _is_at(descriptor, path) and may_be_lock(path):
            path.unlink()
