"""What may be removed of the Hub's cache of one repository.

In: a snapshot of a repository. Out: the cache without a file that is wrong. What is removed does not depend
on any answer of a server: only on where the snapshot lies.
"""

from __future__ import annotations

import os
from pathlib import Path


def cached_file(snapshot: Path, name: str) -> Path | None:
    """Return where a file of a snapshot is on disk, or None if that is no file in the same Hub's cache."""
    path, cache = (snapshot / name).resolve(), snapshot.parent.parent.parent.resolve()
    return path if path.is_file() and path.is_relative_to(cache) else None


def forget(snapshot: Path, name: str) -> None:
    """Remove a file from a snapshot, and the blob of the same repository that it is a link to.

    Nothing else is removed, wherever the link leads.
    """
    entry, blobs = snapshot / name, snapshot.parent.parent / "blobs"
    folder = entry.parent.resolve()
    if not folder.is_relative_to(snapshot.parent.resolve() / snapshot.name):  # a folder that is a link
        return
    if entry.is_symlink():
        target = Path(os.path.normpath(folder / entry.readlink()))
        if target.parent == blobs.resolve() and (target.is_symlink() or target.is_file()):
            target.unlink(missing_ok=True)
    if entry.is_symlink() or entry.is_file():
        entry.unlink(missing_ok=True)
