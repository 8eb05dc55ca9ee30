"""An artifact on the Hub -> a folder of the Hub's cache with what generating images needs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.d3hr_json import METADATA, MOMENTS, max_bytes, needed_files, read_metadata
from d3hr_datasets.errors import (
    ArtifactIntegrityError,
)
from d3hr_datasets.io.hub import download
from d3hr_datasets.io.untrusted_files import MAX_JSON_BYTES, file_sha256


def download_artifact(
    repo_id: str,
    revision: str | None,
    *,
    sha256: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
    with_moments: bool = False,
) -> Path:
    """Bring what generating images needs of an artifact; arguments, result and errors as `download`.

    `with_moments` brings the sums behind the statistics, too, where it has them.

    Raises:
        ArtifactFormatError: Its `d3hr.json` cannot be read by this version.
    """
    options: Any = {"token": token, "local_files_only": local_files_only, "cache_dir": cache_dir}
    folder = download(repo_id, revision, {METADATA: sha256}, {METADATA: MAX_JSON_BYTES}, **options)
    found = file_sha256(folder / METADATA) if (folder / METADATA).exists() else None
    if sha256 not in (None, found):  # one that was in the cache already
        raise ArtifactIntegrityError(
            f"{METADATA} of {repo_id}@{folder.name} has the SHA-256 {found}, not the expected {sha256}: it "
            "is not what this version of d3hr-datasets was released with. Remove it from the Hub's cache and "
            "try again; if it stays so, do not use it"
        )
    info, checksums = read_metadata(folder)
    # The folder's name is the commit, so that all files are of the same one.
    more = [MOMENTS] if with_moments and MOMENTS in checksums else []
    needed = {name: checksums[name] for name in [*needed_files(info, checksums), *more]}
    limits = {name: max_bytes(info, name) for name in (METADATA, *needed)}
    return download(repo_id, folder.name, {METADATA: sha256, **needed}, limits, **options)
