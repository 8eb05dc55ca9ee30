"""The Hugging Face Hub: a repository -> a folder of the Hub's cache, and a folder -> a repository.

What is downloaded is checked before it is used, and does not stay in the cache if it is wrong. All of the
Hub's environment variables (`HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_TOKEN`, ...) are
honoured.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from d3hr_datasets.errors import (
    ArtifactIntegrityError,
    ArtifactNotFoundError,
    ConfigError,
    D3HRError,
    PublishError,
)
from d3hr_datasets.io.foreign import MAX_WEIGHTS_BYTES, file_sha256, read_file
from d3hr_datasets.io.hub_cache import cached_file, forget
from d3hr_datasets.io.hub_files import COMMIT, fetch_file, library
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.text import printable

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
    known: Path | None = None
    if revision is not None and COMMIT.fullmatch(revision):
        known = _snapshot_folder(repo_id, revision, cache_dir)
    names = list(sha256)
    if known is not None and not local_files_only:
        for name in names:  # links that lead elsewhere, as other programs may have left them, are made anew
            if (known / name).is_symlink() and cached_file(known, name) is None:
                forget(known, name)
    # `Artifact` checks these when it reads them; nobody else has a checksum of `d3hr.json`.
    before = {name for name in names if sha256[name] and known is not None and (known / name).exists()}
    for attempt in ("first", "second"):
        try:
            commit = revision
            for name in names:
                path = fetch_file(
                    repo_id,
                    name,
                    sizes[name],
                    repo_type="dataset",
                    revision=commit,
                    token=token,
                    local_files_only=local_files_only,
                    cache_dir=cache_dir,
                )
                folder = path.parents[name.count("/")]
                commit = folder.name  # so that all files are of the same one
        except D3HRError:
            raise
        except Exception as error:  # the client lets those of its own libraries through
            if attempt == "first" and _may_pass(error):
                logger.warning("%s was not downloaded: %s; trying again", repo_id, _reason(error))
                continue
            raise ArtifactNotFoundError(
                f"the Hub does not give {repo_id}@{revision or 'main'}, and there is no such folder: "
                f"{_reason(error)}. Check name and revision, the connection (HF_HUB_OFFLINE, HF_ENDPOINT) "
                "and the access (HF_TOKEN, `hf auth login`)"
            ) from error
        wrong = [name for name in names if name not in before and not _is_right(folder, name, sha256[name])]
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
) -> Published:
    """Upload files of a folder to a repository ("dataset" or "model"), which is made if it is missing.

    No commit is made where nothing differs. Files that are there and not in `names` stay.

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
            allow_patterns=_as_patterns(names),
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


def _as_patterns(names: Iterable[str]) -> list[str]:
    """Return patterns that match these names alone."""
    return [re.sub(r"([*?[])", r"[\1]", name) for name in names]


def _reason(error: BaseException) -> str:
    text = f"{type(error).__name__}: {printable(' '.join(str(error).split())[:500])}"
    return text if error.__cause__ is None else f"{text} ({_reason(error.__cause__)})"


def _may_pass(error: Exception) -> bool:
    """Say whether trying again may help: not where the Hub refuses, or is not asked."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", 500)
    return status >= 500 and not isinstance(error, LocalEntryNotFoundError)


def _snapshot_folder(repo_id: str, commit: str, cache_dir: str | Path | None) -> Path:
    from huggingface_hub import constants

    root = expand_user(constants.HF_HUB_CACHE if cache_dir is None else cache_dir)
    return root / f"datasets--{repo_id.replace('/', '--')}" / "snapshots" / commit


def _is_right(folder: Path, name: str, sha256: str | None) -> bool:
    """Say whether a file has its checksum, or, without one, that which its blob is named by.

    A missing file counts as right: the repository has none, which its reader says.
    """
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
        data = read_file(blob, MAX_WEIGHTS_BYTES)
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == blob.name
    return True  # a cache without symbolic links
