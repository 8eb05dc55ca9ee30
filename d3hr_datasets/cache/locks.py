"""Who may write a group of the image cache, and where it is written until it is whole.

    ROOT/.partial/SET.NUMBER.HOST.UUID/   groups being written
    ROOT/.locks/SET.NUMBER.lock           one empty file per group being made

In: the root of a cache, a set and a group of it. Out: the right to write it, and a folder to do so.

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

`leftovers` says when a folder in ROOT/.partial may be removed.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import re
import socket
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from d3hr_datasets.cache.files import check_real_folder, write_error
from d3hr_datasets.errors import CacheError

PARTIAL = ".partial"
LOCKS = ".locks"
LOCK_TIMEOUT = 3600.0  # seconds

_UNLOCKED = "_unlocked"  # no host: an underscore does not occur in what `_host` returns
NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_PARTIAL = re.compile(r"(?P<name>.+)\.(?P<number>[0-9]+)\.(?P<host>[A-Za-z0-9-]+|_unlocked)\.[0-9a-f]{32}")
_LOCK = re.compile(r"(?P<name>.+)\.(?P<number>[0-9]+)\.lock")


class Hold(enum.Enum):
    """What became of taking a lock."""

    HELD = "this process holds it"
    BUSY = "another one does"
    UNSUPPORTED = "the file system has no locks"


@contextlib.contextmanager
def group_lock(
    root: Path, set_name: str, number: str, timeout: float, *, keep: bool = False
) -> Iterator[Hold]:
    """Take the lock of a group, if it can be had in `timeout` seconds, and remove its file in the end.

    Args:
        root: Folder of all sets.
        set_name: The set.
        number: Number of the group.
        timeout: Seconds to wait.
        keep: Leave a file that was there before.

    Raises:
        CacheError: The cache cannot be written.
    """
    path = root / LOCKS / f"{set_name}.{number}.lock"
    keep = keep and path.exists()
    lock = FileLock(path, timeout=timeout, fallback_to_soft=False)
    check_real_folder(path.parent)
    if not may_be_lock(path):
        raise CacheError(f"{path} is no lock file of the cache; move it away or give another `root`")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        hold = Hold.HELD
    except Timeout:
        hold = Hold.BUSY
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise write_error(root, error) from error
        hold = Hold.UNSUPPORTED
    try:
        yield hold
    finally:
        if hold is not Hold.BUSY and not keep:
            # Before the release: whoever waits for this file finds it gone and starts with a new one.
            with contextlib.suppress(OSError):
                if may_be_lock(path):
                    path.unlink()
        lock.release()


def new_partial(root: Path, set_name: str, number: str, hold: Hold) -> Path:
    """Return a name for a folder in which to write a group; no other process has it."""
    owner = _host() if hold is Hold.HELD else _UNLOCKED
    return root / PARTIAL / f"{set_name}.{number}.{owner}.{uuid.uuid4().hex}"


def written_by(partial: Path) -> tuple[str, str, bool] | None:
    """Return set name and group number of a folder in `.partial`, and whether a lock of this host guards it.

    None if its name is none that `new_partial` gives: then it is not the cache's.
    """
    match = _PARTIAL.fullmatch(partial.name)
    return (match["name"], match["number"], match["host"] == _host()) if match else None


def locked_by(lock_file: Path) -> tuple[str, str] | None:
    """Return set name and group number of a file in `.locks`, or None if it is no lock file's name."""
    match = _LOCK.fullmatch(lock_file.name)
    return (match["name"], match["number"]) if match else None


def may_be_lock(path: Path) -> bool:
    """Say whether a path is free, or that of an empty file, as `group_lock` makes it."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(state.st_mode) and state.st_size == 0


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())
