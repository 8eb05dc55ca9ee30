"""Paths as people write them -> paths of the file system."""

from __future__ import annotations

from pathlib import Path

from d3hr_datasets.errors import ConfigError


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
