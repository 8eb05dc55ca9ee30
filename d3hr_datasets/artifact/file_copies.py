"""Copies of files into a folder of an artifact, whole or not at all where one is there already."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.errors import D3HRError, ExportError
from d3hr_datasets.io.atomic import completed_folder, replace_file


def copy_files(folder: Path, sources: Mapping[str, Path], finish: Callable[[Path], object]) -> None:
    """Copy files into a folder, and finish what is in it.

    Args:
        folder: Made if it is missing; replaced in the end where it holds an artifact.
        sources: By name in the folder, which may have folders in it.
        finish: Called with the folder that is written.

    Raises:
        ExportError: The folder cannot be written.
    """
    try:
        with completed_folder(folder, METADATA) as place:
            for name, source in sources.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                replace_file(place / name, lambda path, source=source: shutil.copyfile(source, path))  # type: ignore[misc]
            finish(place)
    except D3HRError:  # some are OSErrors, but say what is wrong themselves
        raise
    except OSError as error:
        raise ExportError(
            f"{str(folder)!r:.300} cannot be written: {error.strerror}. Free some space, or give "
            "a folder that can be written"
        ) from error
