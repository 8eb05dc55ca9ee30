"""Folders that are replaced whole or not at all, and paths as people write them.

In: a folder, or a path. Out: the folder with everything that was to change in it, or as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from d3hr_datasets.errors import ConfigError

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}

logger = logging.getLogger(__name__)


def expand_user(path: str | Path) -> Path:
    """Return a path with `~` and `~user` replaced by the home folder.

    Raises:
        ConfigError: There is none, or the path has a NUL, which no path has.
    """
    if "\0" in str(path):
        raise ConfigError(f"{str(path)!r:.300} has a NUL character; accepted: the path of a file or folder")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{str(path)!r} begins with '~', and that user has no home folder; write the folder out, or put "
            "'./' before a name that begins so"
        ) from error


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a copy of a folder to change, which takes its place if nothing is raised.

    Files of the copy are links to the old ones: give new ones their names by `replace_file`, or remove those
    that are there first. A process that is killed leaves the folder as it was, and the copy beside it.

    Args:
        folder: The folder; it may be missing. If it is a link, what it leads to is replaced.

    Raises:
        ConfigError: The working folder of this process is in it.
    """
    folder = folder.resolve()
    if Path.cwd().is_relative_to(folder):
        raise ConfigError(
            f"{folder} is replaced as a whole, and is the working folder or holds it, which would be gone; "
            "`cd ..` first"
        )
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    before = _state(folder)  # what is added while it is copied is noticed, too
    try:
        if folder.exists():
            shutil.copytree(folder, new, symlinks=True, copy_function=_link_or_copy)
        else:
            new.mkdir(parents=True)
        yield new
        if not folder.exists():
            new.rename(folder)
        else:
            exchange(new, folder)
            if _state(new) != before:
                kept = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.old")
                new.rename(kept)
                logger.warning("%s was changed while it was replaced; what was there is in %s", folder, kept)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def completed_folder(folder: Path, holds: str) -> contextlib.AbstractContextManager[Path]:
    """Yield a folder to write: itself, or a copy that replaces it in the end if it holds a finished work.

    Args:
        folder: The folder.
        holds: The file that makes it a finished work, as `d3hr.json` an artifact.
    """
    return replaced_folder(folder) if (folder / holds).is_file() else contextlib.nullcontext(folder)


def exchange(first: Path, second: Path) -> None:
    """Let two folders change places: at once where the system can, else one after the other."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        if libc.renameat2(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _CANNOT:
            raise OSError(code, os.strerror(code), str(first), None, str(second))
    aside = first.with_name(f"{first.name}.old")
    second.rename(aside)
    try:
        first.rename(second)
    except BaseException:
        aside.rename(second)
        raise
    aside.rename(first)


def _link_or_copy(source: str, target: str) -> None:
    """Make a second name for a file, or a copy where the file system has no such names."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what tells whether a file was added to a folder, or written again."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        found[str(path.relative_to(folder))] = (state.st_ino, state.st_mtime_ns)
    return found
