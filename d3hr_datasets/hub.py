"""The Hugging Face Hub: "ORG/NAME" or "ORG/NAME@REVISION" -> a folder with an artifact.

What is downloaded are the files that its `d3hr.json` lists, and they are checked like those of any other
artifact: by the checksums there.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from d3hr_datasets.artifact import METADATA, Artifact
from d3hr_datasets.errors import ArtifactIntegrityError, ArtifactNotFoundError

_REPOSITORY = re.compile(r"(?P<repo_id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")


def resolve_artifact(artifact: str | Path, sha256: str | None = None) -> Path:
    """Return the folder of an artifact, downloaded to the Hub's cache if it is not one here.

    A folder that holds `d3hr.json` is taken as it is, also where its name could be one on the Hub.
    `HF_HUB_OFFLINE`, `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN` are honoured.

    Args:
        artifact: A folder, "ORG/NAME" (its newest commit) or "ORG/NAME@REVISION".
        sha256: Checksum that the `d3hr.json` of a repository must have.

    Raises:
        ArtifactNotFoundError: It is neither, or the Hub does not give it.
        ArtifactIntegrityError: The `d3hr.json` is another one than `sha256` tells.
    """
    folder = Path(artifact).expanduser()
    match = _REPOSITORY.fullmatch(artifact) if isinstance(artifact, str) else None
    if (folder / METADATA).is_file() or match is None:
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    from d3hr_datasets import __version__

    def download(revision: str | None, files: list[str]) -> Path:
        return Path(
            snapshot_download(
                match["repo_id"],
                repo_type="dataset",
                revision=revision,
                allow_patterns=[re.sub(r"([*?[])", r"[\1]", name) for name in files],
                library_name="d3hr-datasets",
                library_version=__version__,
            )
        )

    try:
        path = download(match["revision"], [METADATA])
        found = hashlib.sha256((path / METADATA).read_bytes()).hexdigest()
        if sha256 not in (None, found):
            raise ArtifactIntegrityError(
                f"{METADATA} of {artifact} has the SHA-256 {found}, not the expected {sha256}: it is not "
                "what this version of d3hr-datasets was released with. Remove it from the Hub's cache and "
                "try again; if it stays so, do not use it"
            )
        # The folder's name is the commit, so that all files are of the same one.
        return download(path.name, [METADATA, *Artifact.load(path).sha256])
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactNotFoundError(
            f"{artifact!r} is no folder with a {METADATA}, and the Hub does not give it: {error}. Accepted: "
            "a folder, 'ORG/NAME' or 'ORG/NAME@REVISION' of a dataset repository; check name and revision, "
            "the connection (HF_HUB_OFFLINE) and the access (HF_TOKEN)"
        ) from error
