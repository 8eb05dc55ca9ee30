"""The files of an artifact, each compared with its checksum before it is read.

In: a folder, what it describes, and the checksums in it. Out: paths of files that are what they should be.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.d3hr_json import ADAPTER, CURATION, METADATA, list_files, max_bytes, needed_files
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.diffusion.adapters import FILES as ADAPTER_FILES
from d3hr_datasets.errors import ArtifactIntegrityError, ForeignFileError, ModelNotFoundError
from d3hr_datasets.io.untrusted_files import (
    check_file,
    check_model_file,
    file_sha256,
    file_version,
    is_file,
    is_folder,
    path_inside,
)


class CheckedFiles:
    """A folder whose files are compared with their checksums.

    Args:
        folder: The folder.
        info: What it describes.
        sha256: Checksum in hexadecimal of every other file, by relative POSIX path.
        repo_id: Where it is from on the Hub, or None.
        revision: The commit of `repo_id`, always a whole hash.
    """

    def __init__(
        self,
        folder: Path,
        info: ArtifactInfo,
        sha256: dict[str, str],
        repo_id: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.folder = folder
        self.info = info
        self.sha256 = sha256
        self.repo_id = repo_id
        self.revision = revision
        self._checked: dict[str, tuple[int, ...]] = {}  # the state of each file when it was found right

    def __repr__(self) -> str:
        classes = f"{len(self.info.classes)} classes"
        return f"{type(self).__name__}({str(self.folder)!r}, {classes}, {self.fingerprint})"

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name what decides images (cards and pictures left out).

        An order of curated images is left out, too: it decides those of curated sets only, and all others
        stay what they were before there was one. `order_fingerprint` names it.
        """
        needed = [name for name in needed_files(self.info, self.sha256) if name != CURATION]
        values = {key: value for key, value in self.info.to_dict().items() if key != "curation"}
        return _digest([values, {name: self.sha256[name] for name in needed}])

    @property
    def order_fingerprint(self) -> str | None:
        """Sixteen hexadecimal digits that name the order of curated images; None if there is none."""
        curation = self.info.curation
        return None if curation is None else _digest([curation.to_dict(), self.sha256.get(CURATION)])

    def check(self, name: str) -> Path:
        """Return the path of a file of the artifact, its checksum compared anew when it has changed.

        Raises:
            ArtifactIntegrityError: It is missing, lies elsewhere, or is not the file `d3hr.json` describes.
        """
        path = path_inside(self.folder, name)
        if not is_file(path):
            raise ArtifactIntegrityError(
                f"{path} is missing, {METADATA} lists it; download the artifact again"
            )
        try:
            state = file_version(path)
            if self._checked.get(name) == state:
                return path
            check_file(path, max_bytes(self.info, name))
            digest = file_sha256(path)
            changing = file_version(path) != state
        except ForeignFileError as error:
            raise ArtifactIntegrityError(f"{error}; {METADATA} lists it") from error
        if changing or name not in self.sha256 or digest != self.sha256[name]:
            raise ArtifactIntegrityError(
                f"{path} is not the file that {METADATA} describes (SHA-256 differs): truncated, damaged "
                f"or changed; {self._mend(path)}"
            )
        self._checked[name] = state
        return path

    def _mend(self, path: Path) -> str:
        if self.repo_id is None:
            return "download the artifact again"
        return f"remove {path.resolve()}, and it is downloaded again"

    def adapter_folder(self) -> Path | None:
        """Return the folder of the adapter, its files checked; None if there is none.

        Raises:
            ModelNotFoundError: A file of it is not there.
            ArtifactIntegrityError: A file of it differs.
        """
        if not self.info.adapter:
            return None
        path_inside(self.folder, ADAPTER)
        for name in ADAPTER_FILES:
            if f"{ADAPTER}/{name}" not in self.sha256:
                raise ModelNotFoundError(
                    f"{self.folder / ADAPTER / name} is not listed in {METADATA}, which says that there is "
                    "an adapter; download the artifact again"
                )
            check_model_file(self.check(f"{ADAPTER}/{name}"))
        return self.folder / ADAPTER

    def model_folder(self) -> Path | None:
        """Return the folder of the model inside the artifact, its files checked; None if it is elsewhere.

        Raises:
            ModelNotFoundError: No file of it is there.
            ArtifactIntegrityError: A file of it differs or is not listed, or a folder of it is a link.
        """
        relative = self.info.model.path
        if relative is None:
            return None
        names = [name for name in self.sha256 if name.startswith(f"{relative}/")]
        if not names or not is_folder(self.folder / relative):
            raise ModelNotFoundError(
                f"{self.folder / relative} has no model, but {METADATA} refers to it; "
                "download the artifact again"
            )
        path_inside(self.folder, relative)
        for path in list_files(self.folder / relative):
            name = path.relative_to(self.folder).as_posix()
            if name not in self.sha256 and path.suffix != ".md":
                raise ArtifactIntegrityError(
                    f"{path} is not listed in {METADATA}; remove it, it may not be read"
                )
        for name in names:
            if not name.endswith(".md"):
                check_model_file(self.check(name))
        return self.folder / relative


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
