"""The membership of an artifact that images were forgotten of: written where no file is.

In: a path and a membership. Out: the file, or an error that says what is in its way.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from d3hr_datasets.artifact.membership import Membership, write_membership
from d3hr_datasets.errors import CombineError, ConfigError


def make_parent(path: Path) -> None:
    """Make the folder of a file, before hours of work.

    Raises:
        CombineError: It cannot be made, or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{path.parent} cannot be written")
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def add_membership(path: Path, found: Membership) -> None:
    """Write a membership.

    Raises:
        ConfigError: A file is there, perhaps since another command has just written it.
        CombineError: It cannot be written.
    """
    try:
        write_membership(path, found, must_be_new=True)
    except FileExistsError as error:
        raise is_there(path) from error
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def is_there(path: Path) -> ConfigError:
    """Return what is said of a file that would be replaced."""
    return ConfigError(f"new_membership={str(path)!r} is there already; give a new file, or move it")


def _cannot_be_written(path: Path, error: OSError) -> CombineError:
    return CombineError(
        f"new_membership={str(path)!r:.300} cannot be written: {error.strerror or error}. Free some "
        "space, or give a file in a folder that can be written"
    )
