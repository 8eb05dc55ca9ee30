"""Writes files whole or not at all.

In: a path and what writes there. Out: the whole file, or the one that was there before.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file through a temporary of its own, synced before it gets its name: there is no half one.

    Args:
        path: The file.
        write: Writes a file at the path it is given.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # no link can be there
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user wants new files; safetensors keeps them to their owner
        write(temporary)
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
