"""The Hugging Face Hub: a repository -> a folder of the Hub's cache, and a folder -> a repository.

What is downloaded is checked before it is used, and does not stay in the cache if it is wrong. All of the
Hub's environment variables (`HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_TOKEN`, ...) are
honoured.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from d3hr_datasets.errors import (
    ArtifactIntegrityError,
    ArtifactNotFoundError,
    ConfigError,
    D3HRError,
    PublishError,
)
from d3hr_datasets.io.hub_cache import cached_file, forget, forget_strays, snapshot_folder
from d3hr_datasets.io.hub_files import COMMIT, fetch_file, library
from d3hr_datasets.io.text import printable
from d3hr_datasets.io.untrusted_files import MAX_WEIGHTS_BYTES, file_sha256, read_file

logger = logging.getLogger(__name__)

_REPOSITORY = re.compile(r"(?P<repo_id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
MAX_REPOSITORY = 300  # characters; the Hub's own names have at most 96


@dataclass(frozen=True)
class Published:
    """What publishing did.

    Args:
        repo_id: "ORG/NAME".
        revision: The commit that holds the files now.
        url: Where to look at it: the commit, or the pull request.
        changed: Whether there was anything to change.
    """

    repo_id: str
    revision: str
    url: str
    changed: bool


def split_repository(text: str) -> tuple[str, str | None] | None:
    """Return repository and revision of "ORG/NAME" or "ORG/NAME@REVISION", or None if it is neither."""
    match = _REPOSITORY.fullmatch(text) if len(text) <= MAX_REPOSITORY else None
    return (match["repo_id"], match["revision"]) if match else None


def download(
    repo_id: str,
    revision: str | None,
    sha256: Mapping[str, str | None],
    sizes: Mapping[str, int],
    *,
    token: str | bool | None = None,
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
) -> Path:
    """Bring files of a dataset repository to the Hub's cache; check those that are new or have no checksum.

    A file that arrives wrong is removed. Then, or when the connection breaks, it is tried once more.

    Args:
        repo_id: "ORG/NAME".
        revision: A commit, branch or tag; the newest commit of `main` by default.
        sha256: Checksum by name of each file to bring; None where only the Hub has one.
        sizes: Bytes by name that each may have.
        token: Of the Hub, where the user's own is not to be used.
        local_files_only: Do not ask the Hub.
        cache_dir: The Hub's cache by default.

    Returns:
        The folder of the commit, which is named by its hash.

    Raises:
        ArtifactNotFoundError: The Hub does not give the files, and they are not cached.
        ArtifactIntegrityError: It gives another file than the checksum says, twice, or a larger one.
    """
    where: dict[str, Any] = {"local_files_only": local_files_only, "cache_dir": cache_dir}
    fetch = partial(fetch_file, repo_id, repo_type="dataset", token=token, **where)
    known = snapshot_folder(repo_id, revision, cache_dir)
    if known is not None and not local_files_only:
        forget_strays(known, sha256)
    # `Artifact` checks these when it reads them; nobody else has a checksum of `d3hr.json`.
    before = {name for name in sha256 if sha256[name] and known is not None and (known / name).exists()}
    for attempt in ("first", "second"):
        try:
            folder = _fetch_all(fetch, sha256, sizes, revision)
        except D3HRError:
            raise
        except Exception as error:  # the client lets those of its own libraries through
            if attempt == "first" and _may_pass(error):
                logger.warning("%s was not downloaded: %s; trying again", repo_id, _reason(error))
                continue
            raise _not_given(repo_id, revision, error) from error
        wrong = [name for name in sha256 if name not in before and not _is_right(folder, name, sha256[name])]
        if not wrong:
            return folder
        for name in wrong:
            logger.warning("%s of %s arrived wrong at the %s attempt; it is removed", name, repo_id, attempt)
            forget(folder, name)
    raise ArtifactIntegrityError(
        f"{wrong} of {repo_id}@{folder.name} is not what its checksum says, twice: the repository is "
        "damaged, or the connection changes what it carries. Tell its authors, or try another connection"
    )


def upload(
    folder: Path,
    names: Iterable[str],
    repo_id: str,
    *,
    repo_type: str = "dataset",
    private: bool | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    commit_message: str,
    removed: Iterable[str] = (),
) -> Published:
    """Upload files of a folder to a repository ("dataset" or "model"), which is made if it is missing.

    No commit is made where nothing differs. Files that are there and not in `names` stay, but for those that
    are to be `removed`, which earlier commits still have.

    Raises:
        ConfigError: `repo_id` is no "ORG/NAME".
        PublishError: The Hub does not take them.
    """
    from huggingface_hub import HfApi

    if split_repository(repo_id) is None or "@" in repo_id:
        raise ConfigError(f"a repository is named ORG/NAME, not {repo_id!r}")
    api = HfApi(token=token, **library())
    try:
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        before = api.repo_info(repo_id, repo_type=repo_type).sha
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type=repo_type,
            folder_path=folder,
            allow_patterns=[glob.escape(name) for name in names],
            delete_patterns=[glob.escape(name) for name in removed] or None,
            commit_message=commit_message,
            create_pr=create_pr,
        )
    except Exception as error:  # as above; ValueError where the Hub finds the card's YAML wrong
        raise PublishError(
            f"the Hub does not take {repo_id}: {_reason(error)}. Check the connection and the token and "
            "its right to write there (HF_TOKEN, `hf auth login`), then publish again: what was uploaded is "
            "not uploaded twice"
        ) from error
    return Published(repo_id, commit.oid, commit.pr_url or commit.commit_url, commit.oid != before)


def _not_given(repo_id: str, revision: str | None, error: Exception) -> ArtifactNotFoundError:
    return ArtifactNotFoundError(
        f"the Hub does not give {repo_id}@{revision or 'main'}, and there is no such folder: "
        f"{_reason(error)}. Check name and revision, the connection (HF_HUB_OFFLINE, HF_ENDPOINT) "
        "and the access (HF_TOKEN, `hf auth login`)"
    )


def _reason(error: BaseException) -> str:
    text = f"{type(error).__name__}: {printable(' '.join(str(error).split())[:500])}"
    return text if error.__cause__ is None else f"{text} ({_reason(error.__cause__)})"


def _may_pass(error: Exception) -> bool:
    """Say whether trying again may help: not where the Hub refuses, or is not asked."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", 500)
    return status >= 500 and not isinstance(error, LocalEntryNotFoundError)


def _fetch_all(
    fetch: Callable[..., Path], names: Iterable[str], sizes: Mapping[str, int], revision: str | None
) -> Path:
    """Bring files of one commit; return its folder."""
    for name in names:
        folder = fetch(name, sizes[name], revision=revision).parents[name.count("/")]
        revision = folder.name  # so that all files are of the same one
    return folder


def _is_right(folder: Path, name: str, sha256: str | None) -> bool:
    """Say whether a file has its checksum, or, without one, that which its blob is named by.

    A missing file counts as right: the repository has none, which its reader says.
    """
    from huggingface_hub.utils.sha import git_hash

    if not (folder / name).exists():
        return True
    blob = cached_file(folder, name)
    if blob is None:
        return False
    if sha256 is not None:
        return file_sha256(blob) == sha256
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        return file_sha256(blob) == blob.name
    if COMMIT.fullmatch(blob.name):
        return git_hash(read_file(blob, MAX_WEIGHTS_BYTES)) == blob.name
    return True  # a cache without symbolic links
