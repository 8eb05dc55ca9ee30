"""One file of a repository on the Hub -> the Hub's cache: no larger than it may be, and nowhere else.

A server may state any size, send more than it states, break off again and again, and call a blob by a name
that is a path. So what it says of a file is looked at before anything is stored, and what it sends counted.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d3hr_datasets.errors import ArtifactIntegrityError
from d3hr_datasets.io.text import printable
from d3hr_datasets.io.untrusted_files import check_file, path_inside

COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # what Git calls a file by, or LFS
_REPETITIONS = 4  # of a transfer that breaks off


def library() -> dict[str, Any]:
    """Return how the user agent names this library."""
    from d3hr_datasets.version import __version__

    return {"library_name": "d3hr-datasets", "library_version": __version__}


def fetch_file(
    repo_id: str,
    name: str,
    max_bytes: int,
    *,
    repo_type: str,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
) -> Path:
    """Bring a file to the Hub's cache, unless it is there.

    Args:
        repo_id: "ORG/NAME".
        name: Its path in the repository.
        max_bytes: Its size at most.
        repo_type: "dataset" or "model".
        revision: A commit, branch or tag; the newest commit of `main` by default.
        token: Of the Hub, where the user's own is not to be used.
        local_files_only: Do not ask the Hub.
        cache_dir: The Hub's cache by default.

    Returns:
        Its path in the folder of the commit.

    Raises:
        ArtifactIntegrityError: It is larger, more is sent than was stated, or the Hub's answer names no blob
            or commit.
        Exception: Whatever the client raises where the Hub does not give it, and it is not cached.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError

    where: dict[str, Any] = {"repo_type": repo_type, "revision": revision, "cache_dir": cache_dir}
    options: dict[str, Any] = {**where, **library()}
    if local_files_only or constants.HF_HUB_OFFLINE:
        return _found(hf_hub_download(repo_id, name, local_files_only=True, **options), name, max_bytes)
    if revision is not None and COMMIT.fullmatch(revision):
        cached = try_to_load_from_cache(repo_id, name, **where)
        if isinstance(cached, str):
            return _found(cached, name, max_bytes)
    try:
        size = _stated_size(repo_id, name, max_bytes, repo_type, revision, token)
    except (ArtifactIntegrityError, EntryNotFoundError, RevisionNotFoundError):
        raise
    except Exception as error:  # the client lets those of its own libraries through
        try:
            return _found(hf_hub_download(repo_id, name, local_files_only=True, **options), name, max_bytes)
        except LocalEntryNotFoundError:
            raise error from error.__cause__
    with _guarded():
        path = hf_hub_download(repo_id, name, token=token, tqdm_class=_meter(name, size), **options)
    return _found(path, name, max_bytes)


def _stated_size(
    repo_id: str, name: str, max_bytes: int, repo_type: str, revision: str | None, token: str | bool | None
) -> int:
    """Return the size that the Hub states, or the limit where it states none."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repo_id, name, repo_type=repo_type, revision=revision)
    found = get_hf_file_metadata(url, token=token, **library())
    _check_names(found.etag, found.commit_hash)
    if found.size is not None and not 0 <= found.size <= max_bytes:
        raise ArtifactIntegrityError(
            f"{name} of {repo_id} has {found.size:,} bytes; accepted: at most {max_bytes:,}. It is not "
            "downloaded"
        )
    return max_bytes if found.size is None else found.size


def _meter(name: str, size: int) -> type[Any]:
    """Return a progress bar that ends a transfer of more than `size` bytes, or of the same ones for ever."""
    from huggingface_hub.utils.tqdm import tqdm

    class Meter(tqdm):
        received, sent = 0, 0

        def update(self, n: float | None = 1) -> bool | None:
            number = int(n or 0)  # less than 0 where a transfer that broke off starts anew
            self.received += number
            self.sent += max(number, 0)
            if self.received > size or self.sent > _REPETITIONS * size:
                raise ArtifactIntegrityError(
                    f"the Hub states {size:,} bytes for {name}, and sends more; it is not kept. Check "
                    "HF_ENDPOINT"
                )
            shown: bool | None = super().update(n)
            return shown

    return Meter


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Have every answer that the client takes for us looked at: it asks again for what was asked before."""
    from huggingface_hub import get_session

    agent = f"{library()['library_name']}/"

    def check(response: Any) -> None:
        if response.request.headers.get("user-agent", "").startswith(agent):
            headers = response.headers
            etag = headers.get("x-linked-etag") or headers.get("etag")
            commit = headers.get("x-repo-commit")
            if response.status_code < 400 and commit is not None:
                _check_names((etag or "").removeprefix("W/").strip('"'), commit)

    hooks = get_session().event_hooks["response"]
    hooks.append(check)
    try:
        yield
    finally:
        hooks.remove(check)


def _check_names(blob: str | None, commit: str | None) -> None:
    """Check what the Hub calls a file and its commit by, which become names of files here."""
    if not _BLOB.fullmatch(blob or "") or not COMMIT.fullmatch(commit or ""):
        raise ArtifactIntegrityError(
            f"the Hub calls a file {printable(blob)[:100]!r}, of the commit {printable(commit)[:100]!r}; "
            "accepted: 40 or 64 hexadecimal digits, as the Hub names both. Check HF_ENDPOINT"
        )


def _found(path: str, name: str, max_bytes: int) -> Path:
    """Return the path of a cached file, after a look at where it leads and how large it is."""
    found = Path(path)
    folder = found.parents[name.count("/")]
    check_file(path_inside(folder, name), max_bytes)
    return found
