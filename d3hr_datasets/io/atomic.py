"""Writes files and folders whole or not at all.

In: a path and what writes there. Out: what was to be there, on the disk and under its name at once, or what
was there before. A process that is killed leaves `.NAME.*.tmp` beside it, at most.

- `replace_file`, `replace_text`: a file.
- `replaced_folder`, `completed_folder`: a folder that may be there, with what stays of it.
- `renewed_folder`: the same, and nothing of it stays.
- `added_folder`: a folder that must not be there yet.
- `write_synced`, `sync`: the pieces, for what gets its name otherwise (groups of the image cache).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from d3hr_datasets.errors import ConfigError

LEFT_SECONDS = 3600  # without a change, after which nobody writes a folder any more
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}

logger = logging.getLogger(__name__)


def replace_file(
    path: Path, write: Callable[[Path], object], *, private: bool = False, must_be_new: bool = False
) -> None:
    """Write a file through a temporary of its own, synced before it gets its name: there is no half one.

    Args:
        path: The file.
        write: Writes a file at the path it is given.
        private: Let nobody but its owner read it.
        must_be_new: Replace nothing.

    Raises:
        FileExistsError: It is there, and must be new.
    """
    temporary = _temporary(path)
    try:
        temporary.touch(0o600 if private else 0o666)
        mode = temporary.stat().st_mode  # as the user wants new files; safetensors keeps them to their owner
        with _system_errors():
            write(temporary)
        temporary.chmod(mode)
        sync(temporary)
        if must_be_new:
            _add(temporary, path)
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _add(temporary: Path, path: Path) -> None:
    """Give a file its name if no other has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # the file system has no second names
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.replace(path)


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Raise what safetensors says of a full disk as the system's error that it is."""
    try:
        yield
    except SafetensorError as error:
        if "I/O error" not in str(error):
            raise
        raise OSError(str(error)) from error


def remove_unfinished(path: Path) -> None:
    """Remove what processes left that were killed in `replace_file` of a path; none may be at it now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, as `replace_file`."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and have it on the disk; it may be half there meanwhile."""
    path.write_bytes(data)
    sync(path)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def added_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` if nothing is raised.

    Args:
        folder: The folder; it must be missing or empty. What killed processes left of such folders goes when
            it is an hour old. One of a process that lives is locked: hours may pass before it is written to.

    Raises:
        OSError: It holds something by then, or cannot be written.
    """
    _remove_left(folder)
    new = _temporary(folder)
    descriptor = -1
    try:
        new.mkdir(parents=True)
        descriptor = os.open(new, os.O_RDONLY)
        with contextlib.suppress(OSError):  # no file system must have locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield new
        new.rename(folder)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        shutil.rmtree(new, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Check that a folder can be replaced as a whole.

    Raises:
        ConfigError: The working folder of this process is in it.
    """
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"{folder.resolve()} is replaced as a whole, and is the working folder or holds it, which would "
            "be gone; `cd ..` first"
        )


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
    check_replaceable(folder)
    new = _temporary(folder)
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


@contextlib.contextmanager
def renewed_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of another, or of a link, if nothing is raised.

    Args:
        folder: The folder; it may be missing. What a link leads to stays as it is. What killed processes left
            of such folders goes when it is an hour old.
    """
    _remove_left(folder)
    new = _temporary(folder)
    try:
        new.mkdir(parents=True)
        with _system_errors():
            yield new
        if folder.is_symlink():
            folder.unlink()
        if folder.exists():
            exchange(new, folder)
        else:
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _remove_left(folder: Path) -> None:
    """Remove what killed processes left of a folder: what is old, has a name of ours, and is not locked."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
        name = left.name.removeprefix(f".{folder.name}.")
        with contextlib.suppress(OSError):  # another process removes it, too; or there are no locks
            if not re.fullmatch(r"[0-9a-f]{32}\.tmp", name) or left.is_symlink():
                continue
            if time.time() - left.stat().st_mtime <= LEFT_SECONDS:
                continue
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


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


def _temporary(path: Path) -> Path:
    """Return a path beside another, in the same file system, that nobody else has: no link can be there."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
