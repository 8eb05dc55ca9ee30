"""Where a commit lies in the Hub's cache, and what may be removed there.

In: a snapshot of a repository. Out: the cache without a file that is wrong. What is removed does not depend
on any answer of a server: only on where the snapshot lies. `huggingface_hub.try_to_load_from_cache` says
where a file is, but passes over links to what is no file (a FIFO, nothing), which have to go.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from d3hr_datasets.io.hub_files import COMMIT
from d3hr_datasets.io.paths import expand_user


def snapshot_folder(repo_id: str, revision: str | None, cache_dir: str | Path | None) -> Path | None:
    """Return the folder of a commit of a dataset repository; None of a branch, which moves."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if revision is None or not COMMIT.fullmatch(revision):
        return None
    root = expand_user(constants.HF_HUB_CACHE if cache_dir is None else cache_dir)
    return root / repo_folder_name(repo_id=repo_id, repo_type="dataset") / "snapshots" / revision


def forget_strays(snapshot: Path, names: Iterable[str]) -> None:
    """Remove links out of the Hub's cache, as other programs may have left them; they are made anew."""
    for name in names:
        if (snapshot / name).is_symlink() and cached_file(snapshot, name) is None:
            forget(snapshot, name)


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
