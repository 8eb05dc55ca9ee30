"""The Hub's cache of one repository: what its client may be told, and what may be removed of it.

In: answers of a server that may be anybody's, and a snapshot of a repository. Out: an error, or a cache
without a file that is wrong.

The client of the Hub names files by what the server answers, and does not look at it: an ETag that is a path
leads it, and whoever removes its files, out of the cache. Its answers are therefore checked before it acts on
them. (A client that cannot connect makes its session anew; the rest of that attempt is not checked.) What
`forget` removes does not depend on any answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d3hr_datasets.errors import ArtifactIntegrityError

COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.+=-]{0,127}"
)  # the Hub's are SHA-1 or SHA-256, mirrors have others


@contextlib.contextmanager
def checked_answers(repo_id: str) -> Iterator[None]:
    """Have what the Hub's client reads about a repository checked before it names files by it.

    Raises:
        ArtifactIntegrityError: An ETag or a commit is none that can name a file.
    """
    from huggingface_hub import get_session

    def check(response: Any) -> None:
        if f"/{repo_id}" in response.request.url.path:
            _check_answer(repo_id, response)

    hooks = getattr(get_session(), "event_hooks", {"response": []})  # clients before version 1 have none
    hooks["response"].append(check)
    try:
        yield
    finally:
        hooks["response"].remove(check)


def _check_answer(repo_id: str, response: Any) -> None:
    values = {"commit": (COMMIT, response.headers.get("X-Repo-Commit"))}
    if response.request.method == "HEAD":
        for name in ("ETag", "X-Linked-ETag"):
            etag = response.headers.get(name)
            values[name] = _ETAG, etag and etag.removeprefix("W/").strip('"')
    elif response.request.url.path.startswith("/api/"):
        response.read()
        with contextlib.suppress(ValueError, RecursionError):  # the client says what is wrong
            document = json.loads(response.content)
            if isinstance(document, dict) and "sha" in document:
                values["sha"] = COMMIT, document["sha"]
    for name, (pattern, value) in values.items():
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise ArtifactIntegrityError(
                f"the Hub at {response.request.url.host} answers for {repo_id} with the {name} "
                f"{str(value)[:80]!r}, which can name no file of the cache; nothing is downloaded. Check "
                "HF_ENDPOINT: no sound Hub does that"
            )


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
    if not folder.is_relative_to(snapshot.resolve()):
        return
    if entry.is_symlink():
        target = Path(os.path.normpath(folder / entry.readlink()))
        if target.parent == blobs.resolve() and (target.is_symlink() or target.is_file()):
            target.unlink(missing_ok=True)
    if entry.is_symlink() or entry.is_file():
        entry.unlink(missing_ok=True)
