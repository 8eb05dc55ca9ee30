"""New folders that a user asks for: a path -> a folder that appears whole, or an error that says why not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from d3hr_datasets.errors import D3HRError, ExportError
from d3hr_datasets.io.atomic import added_folder
from d3hr_datasets.io.paths import expand_user


@contextlib.contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `output` that takes its place if nothing is raised.

    Args:
        output: The folder; it must be missing or empty.

    Raises:
        ExportError: It holds something, or cannot be written.
    """
    output = expand_user(output).resolve()
    try:
        if output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise ExportError(
                f"{output} exists and is no empty folder; give a new folder, or remove this one: nothing is "
                "replaced"
            )
        with added_folder(output) as folder:
            yield folder
    except D3HRError:  # some are OSErrors, but say what is wrong themselves
        raise
    except OSError as error:
        raise ExportError(
            f"{output} cannot be written: {error}. Free some space, make {output.parent} writable, or give "
            "another folder"
        ) from error
