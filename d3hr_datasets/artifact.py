"""The artifact: what the build side writes and the provide side reads.

A folder, which is also a Hub dataset repository, in format 1:

    d3hr.json                what it describes, with the SHA-256 of every other file
    statistics.safetensors   count (K,), and tT.mean and tT.variance (K, C, H, W) per timestep T; where
                             classes have M modes also modes.count (K, M), tT.modes.mean (K, M, C, H, W)
                             and tT.modes.variance (K, C, H, W)
    model/                   optional: the diffusion model, in diffusers' layout
    README.md                dataset card

Only JSON and safetensors are read. Statistics are read lazily, one class at a time if wished.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors.torch import save_file

from d3hr_datasets.artifact_info import ArtifactInfo
from d3hr_datasets.errors import (
    ArtifactFormatError,
    ArtifactIntegrityError,
    ArtifactNotFoundError,
    ConfigError,
    ModelNotFoundError,
)
from d3hr_datasets.gaussians import ClassGaussians, ClassModes
from d3hr_datasets.statistics import check_stored, pack_statistics, read_gaussians, read_modes

FORMAT = 1
METADATA = "d3hr.json"
STATISTICS = "statistics.safetensors"
MAX_METADATA_BYTES = 16 * 2**20


class Artifact:
    """An artifact on disk. `Artifact.load` opens one, `Artifact.save` writes one.

    Args:
        folder: The folder.
        info: What it describes.
        sha256: Checksum in hexadecimal of every other file, by relative POSIX path.
    """

    def __init__(self, folder: Path, info: ArtifactInfo, sha256: dict[str, str]) -> None:
        self.folder = folder
        self.info = info
        self.sha256 = sha256
        self._checked: set[str] = set()

    def __repr__(self) -> str:
        return f"Artifact({str(self.folder)!r}, {len(self.info.classes)} classes, {self.fingerprint})"

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the contents (the card left out)."""
        files = {path: digest for path, digest in self.sha256.items() if not path.endswith(".md")}
        text = json.dumps([self.info.to_dict(), files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def load(cls, folder: str | Path) -> Artifact:
        """Open an artifact. Reads `d3hr.json` only.

        Raises:
            ArtifactNotFoundError: There is none.
            ArtifactFormatError: It is of another format, or a field has a value that is not accepted.
        """
        folder = Path(folder)
        path = folder / METADATA
        if not path.is_file():
            raise ArtifactNotFoundError(
                f"{path} does not exist: {folder} is no artifact. Give a folder that holds {METADATA}, as "
                "`hf download ORG/NAME --repo-type dataset` brings it"
            )
        if path.stat().st_size > MAX_METADATA_BYTES:
            raise ArtifactFormatError(f"{path}: more than {MAX_METADATA_BYTES} bytes")
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ArtifactFormatError(f"{path} is no JSON: {error}; download it again") from error
        if not isinstance(document, dict) or "format" not in document:
            raise ArtifactFormatError(f"{path}: field 'format' is missing; accepted: {FORMAT}")
        if document["format"] != FORMAT:
            raise ArtifactFormatError(
                f"{path}: format = {document['format']!r}; accepted: {FORMAT}. If it is newer: "
                "`pip install --upgrade d3hr-datasets`"
            )
        info, sha256 = document.get("info"), document.get("sha256")
        if not isinstance(info, dict) or not isinstance(sha256, dict):
            raise ArtifactFormatError(f"{path}: fields 'info' and 'sha256' must be objects")
        for name, digest in sha256.items():
            parts = PurePosixPath(name)
            if parts.is_absolute() or ".." in parts.parts or not isinstance(digest, str) or len(digest) != 64:
                raise ArtifactFormatError(
                    f"{path}: sha256[{name!r}] = {digest!r} is no checksum of a file in it"
                )
        if STATISTICS not in sha256:
            raise ArtifactFormatError(f"{path}: field 'sha256' does not list {STATISTICS}")
        try:
            return cls(folder, ArtifactInfo.from_dict(info), sha256)
        except ConfigError as error:
            raise ArtifactFormatError(f"{path}: {error}") from error

    @classmethod
    def save(
        cls,
        folder: str | Path,
        info: ArtifactInfo,
        gaussians: dict[int, ClassGaussians],
        modes: dict[int, ClassModes] | None = None,
    ) -> Artifact:
        """Write statistics and `d3hr.json`; other files already in `folder` become part of the artifact.

        Args:
            folder: Made if it is missing.
            info: What the artifact describes; `info.counts` must be the Gaussians'.
            gaussians: Class Gaussians by timestep, one for each of `info.inversion.timesteps`.
            modes: Modes by timestep, where `info.num_modes` is more than one.

        Raises:
            StatisticsError: Gaussians or modes do not fit `info`, or overflow `info.dtype`.
        """
        folder = Path(folder)
        tensors = pack_statistics(info, gaussians, modes or {})
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / STATISTICS, lambda path: save_file(tensors, path))
        cls(folder, info, {}).write_metadata()
        return cls.load(folder)

    def write_metadata(self) -> None:
        """Write `d3hr.json` anew, with the checksums of the files that are there now."""
        files = {path.relative_to(self.folder): path for path in sorted(self.folder.rglob("*"))}
        sha256 = {
            relative.as_posix(): file_sha256(path)
            for relative, path in files.items()
            if path.is_file() and path.name != METADATA and not relative.parts[0].startswith(".")
        }
        document = {"format": FORMAT, "info": self.info.to_dict(), "sha256": sha256}
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        _replace(self.folder / METADATA, lambda path: path.write_text(text, encoding="utf-8"))
        self.sha256 = sha256

    def check(self, name: str) -> Path:
        """Return the path of a file of the artifact after comparing its checksum, once per object.

        Raises:
            ArtifactIntegrityError: It is missing, or is not the file `d3hr.json` describes.
        """
        path = self.folder / name
        if name not in self._checked:
            if not path.is_file():
                raise ArtifactIntegrityError(
                    f"{path} is missing, {METADATA} lists it; download the artifact again"
                )
            if name not in self.sha256 or file_sha256(path) != self.sha256[name]:
                raise ArtifactIntegrityError(
                    f"{path} is not the file that {METADATA} describes (SHA-256 differs): truncated, damaged "
                    "or changed; download the artifact again"
                )
            self._checked.add(name)
        return path

    def verify(self) -> None:
        """Check every file and all statistics.

        Raises:
            ArtifactIntegrityError: A file differs.
            ArtifactFormatError: Statistics have another shape or dtype than `d3hr.json` says.
            StatisticsError: Statistics are no Gaussians.
        """
        for name in self.sha256:
            self.check(name)
        for timestep in self.info.inversion.timesteps:
            self.gaussians(timestep)
            if self.info.num_modes > 1:
                self.modes(timestep)

    def model_folder(self) -> Path | None:
        """Return the folder of the model inside the artifact, its files checked; None if it is elsewhere.

        Raises:
            ModelNotFoundError: No file of it is there.
            ArtifactIntegrityError: A file of it differs.
        """
        relative = self.info.model.path
        if relative is None:
            return None
        names = [name for name in self.sha256 if name.startswith(f"{relative}/")]
        if not names or not (self.folder / relative).is_dir():
            raise ModelNotFoundError(
                f"{self.folder / relative} has no model, but {METADATA} refers to it; "
                "download the artifact again"
            )
        for path in (self.folder / relative).rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and name not in self.sha256 and path.suffix != ".md":
                raise ArtifactIntegrityError(
                    f"{path} is not listed in {METADATA}; remove it, it may not be read"
                )
        for name in names:
            if not name.endswith(".md"):
                self.check(name)
        return self.folder / relative

    def gaussians(self, timestep: int, class_label: int | None = None) -> ClassGaussians:
        """Read the class Gaussians of one timestep, in float32.

        Args:
            timestep: One of `info.inversion.timesteps`.
            class_label: Read only this class (K = 1 then).

        Raises:
            ConfigError: The timestep is not stored, or there is no such class.
            ArtifactIntegrityError: The file differs from its checksum.
            ArtifactFormatError: A tensor is missing or has another shape or dtype.
            StatisticsError: A value is not finite or a variance is negative.
        """
        check_stored(self.info, timestep, class_label)
        return read_gaussians(self.check(STATISTICS), self.info, timestep, class_label)

    def modes(self, timestep: int, class_label: int | None = None) -> ClassModes:
        """Read the modes of the classes at one timestep, in float32; arguments and errors as `gaussians`.

        Raises:
            ConfigError: Also where the artifact stores no modes.
        """
        check_stored(self.info, timestep, class_label)
        if self.info.num_modes == 1:
            raise ConfigError(
                f"the artifact {self.info.name} stores no modes; use 'moment_matched' or 'search', or build "
                "one with modes"
            )
        return read_modes(self.check(STATISTICS), self.info, timestep, class_label)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(path: Path, write: Any) -> None:
    """Write a file through a temporary of this process, so that no half file is ever at `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
