"""The artifact: what the build side writes and the provide side reads.

A folder, which is also a Hub dataset repository, in format 1; in format 2 where it has what is marked so:

    d3hr.json                what it describes, with the SHA-256 of every other file; (2) budgets
    statistics.safetensors   count (K,), and tT.mean and tT.variance (K, C, H, W) per timestep T; where
                             classes have M modes also modes.count (K, M), tT.modes.mean (K, M, C, H, W)
                             and tT.modes.variance (K, C, H, W); as integers, each with NAME.scale
    moments.safetensors      optional: the sums behind the statistics, see `moments_file`
    model/                   optional: the diffusion model, in diffusers' layout
    adapter/                 (2) optional: what changes the weights of the model, as peft writes it
    embeddings.safetensors   (2) optional: what the model's text encoders made of the prompts
    curation.safetensors     (2) optional: order (K, N), the numbers of curated images, the best first
    README.md                dataset card

Only JSON and safetensors are read. Statistics are read lazily, one class at a time if wished.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from d3hr_datasets.artifact.checked_files import CheckedFiles
from d3hr_datasets.artifact.d3hr_json import (
    CURATION,
    EMBEDDINGS,
    METADATA,
    MOMENTS,
    STATISTICS,
    document_text,
    file_digests,
    needed_files,
    read_metadata,
)
from d3hr_datasets.artifact.download import download_artifact
from d3hr_datasets.artifact.embeddings import read_embeddings
from d3hr_datasets.artifact.file_copies import copy_files
from d3hr_datasets.artifact.gaussians import ClassGaussians, ClassModes
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.latent_sums import LatentSums
from d3hr_datasets.artifact.membership import check_nothing_private
from d3hr_datasets.artifact.moments_file import read_moments, write_moments
from d3hr_datasets.artifact.order_file import read_order
from d3hr_datasets.artifact.tensors import pack_statistics, read_gaussians, read_modes
from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io import hub
from d3hr_datasets.io.atomic import replace_file, replace_text
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import is_file


class Artifact(CheckedFiles):
    """An artifact on disk. `from_pretrained` and `load` open one, `save` and `save_pretrained` write one.

    Arguments and attributes are those of `CheckedFiles`.
    """

    @classmethod
    def from_pretrained(
        cls,
        repo_or_path: str | Path,
        *,
        revision: str | None = None,
        sha256: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        cache_dir: str | Path | None = None,
        with_moments: bool = False,
    ) -> Artifact:
        """Open an artifact in a folder or on the Hub.

        From the Hub comes what generating images needs, and each new file is compared with its checksum. A
        folder that holds `d3hr.json` is taken as it is, also where its name could be one on the Hub.

        Args:
            repo_or_path: A folder, "ORG/NAME" (its newest commit) or "ORG/NAME@REVISION".
            revision: Commit, branch or tag on the Hub; not with "@REVISION" or a folder. The attribute
                `revision` is the commit it names.
            sha256: Checksum that the `d3hr.json` of a repository must have.
            token: Of the Hub; the user's own (`HF_TOKEN`, `hf auth login`) by default.
            local_files_only: Do not ask the Hub, as with HF_HUB_OFFLINE=1.
            cache_dir: Folder of downloads; the Hub's cache by default.
            with_moments: Also bring the sums that merging and forgetting need, where there are such.

        Raises:
            ConfigError: `revision` goes with a folder or another revision.
            ArtifactNotFoundError: It is neither, or the Hub does not give it and it is not cached.
            ArtifactFormatError: As `load`.
            ArtifactIntegrityError: The Hub gives other files than the artifact lists.
        """
        folder = expand_user(repo_or_path)
        found = hub.split_repository(repo_or_path) if isinstance(repo_or_path, str) else None
        is_local = is_file(folder / METADATA) or found is None
        if revision is not None and (is_local or (found and found[1])):
            raise ConfigError(
                f"revision={revision!r} goes with 'ORG/NAME' on the Hub, and {str(repo_or_path)!r:.300} is a "
                "folder or has a revision already"
            )
        if is_local or found is None:
            return cls.load(folder)
        snapshot = download_artifact(
            found[0],
            revision or found[1],
            sha256=sha256,
            token=token,
            local_files_only=local_files_only,
            cache_dir=cache_dir,
            with_moments=with_moments,
        )
        return cls(snapshot, *read_metadata(snapshot), found[0], snapshot.name)

    def save_pretrained(self, folder: str | Path) -> Artifact:
        """Copy the artifact, each file checked; what is only on the Hub (card, preview) is left out.

        Raises:
            ArtifactIntegrityError: A file is missing or differs from its checksum.
            ExportError: The folder cannot be written.
        """
        folder = expand_user(folder)
        needed = needed_files(self.info, self.sha256)
        sha256 = {n: digest for n, digest in self.sha256.items() if n in needed or is_file(self.folder / n)}
        sources = {name: self.check(name) for name in sha256}
        copy_files(folder, sources, lambda place: Artifact(place, self.info, sha256)._write())
        return Artifact(folder, self.info, sha256)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
        commit_message: str = "Publish a D3HR artifact",
    ) -> hub.Published:
        """Upload `d3hr.json` and every file it lists to a dataset repository, after checking all of them.

        `d3hr publish` does so after a look at what else is needed. Earlier sums go where there are none.

        Raises:
            ArtifactFormatError: A file or the statistics are not what `d3hr.json` says; likewise
                `ArtifactIntegrityError`, `StatisticsError` and `ModelNotFoundError`.
            PublishError: The Hub does not take it, or a file says which images are behind it.
        """
        check_nothing_private(self.folder, self.info, self.sha256)
        self.verify()
        for name in self.sha256:  # of an artifact from the Hub, `verify` looks at what is needed only
            self.check(name)
        return hub.upload(
            self.folder,
            [METADATA, *self.sha256],
            repo_id,
            private=private,
            create_pr=create_pr,
            token=token,
            commit_message=commit_message,
            removed={MOMENTS} - {*self.sha256},
        )

    @classmethod
    def load(cls, folder: str | Path) -> Artifact:
        """Open an artifact in a folder. Reads `d3hr.json` only.

        Raises:
            ArtifactNotFoundError: There is none.
            ArtifactFormatError: It is of another format, or a field has a value that is not accepted.
        """
        folder = expand_user(folder)
        return cls(folder, *read_metadata(folder))

    @classmethod
    def save(
        cls,
        folder: str | Path,
        info: ArtifactInfo,
        gaussians: Mapping[Any, ClassGaussians],
        modes: Mapping[Any, ClassModes] | None = None,
        sums: LatentSums | None = None,
    ) -> Artifact:
        """Write statistics and `d3hr.json`; other files already in `folder` become part of the artifact.

        Args:
            folder: Made if it is missing.
            info: What the artifact describes; `info.counts` must be the Gaussians'.
            gaussians: Class Gaussians by timestep, one for each of `info.inversion.timesteps`.
            modes: Modes by timestep, where `info.num_modes` is more than one.
            sums: The sums behind them; None stores none, and those of earlier statistics go.

        Raises:
            StatisticsError: Gaussians or modes do not fit `info`, or overflow `info.dtype`.
        """
        folder = Path(folder)
        tensors = pack_statistics(info, gaussians, modes or {})
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / STATISTICS, lambda path: save_file(tensors, path))
        write_moments(folder / MOMENTS, sums)
        cls(folder, info, {}).write_metadata()
        return cls.load(folder)

    def write_metadata(self) -> None:
        """Write `d3hr.json` anew, with the checksums of the files that are there now."""
        self.sha256 = file_digests(self.folder)
        self._write()

    def _write(self) -> None:
        self.info.check_counted()
        document = {
            "format": 2 if self.info.needs_format_2 else 1,
            "info": self.info.to_dict(),
            "sha256": self.sha256,
        }
        replace_text(self.folder / METADATA, document_text(document))
        self._checked.clear()

    def verify(self) -> None:
        """Check every file and all statistics. Of an artifact from the Hub, what generating images needs.

        Raises:
            ArtifactIntegrityError: A file differs.
            ArtifactFormatError: Statistics have another shape or dtype than `d3hr.json` says.
            StatisticsError: Statistics are no Gaussians.
        """
        needed = needed_files(self.info, self.sha256)
        for name in self.sha256:
            if self.repo_id is None or name in needed:
                self.check(name)
        self.model_folder()
        self.adapter_folder()
        if self.info.embeddings:
            self.embeddings()
        if self.info.curation is not None:
            self.order()
        if MOMENTS in self.sha256 and (self.repo_id is None or is_file(self.folder / MOMENTS)):
            self.sums()
        for timestep in self.info.inversion.timesteps:
            self.gaussians(timestep)
            if self.info.num_modes > 1:
                self.modes(timestep)

    def gaussians(self, timestep: float, class_label: int | None = None) -> ClassGaussians:
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
        self.info.check_stored(timestep)
        self.info.check_class_label(class_label)
        return read_gaussians(self.check(STATISTICS), self.info, timestep, class_label)

    def modes(self, timestep: float, class_label: int | None = None) -> ClassModes:
        """Read the modes of the classes at one timestep, in float32; arguments and errors as `gaussians`."""
        self.info.check_stored(timestep)
        self.info.check_class_label(class_label)
        self.info.check_modes()
        return read_modes(self.check(STATISTICS), self.info, timestep, class_label)

    def order(self, class_label: int | None = None) -> torch.Tensor:
        """Read the numbers of the curated images, (K, N) int64; arguments and errors as `gaussians`.

        Raises:
            ConfigError: Also where the artifact stores no order.
        """
        self.info.check_class_label(class_label)
        curation = self.info.check_curated()
        return read_order(self.check(CURATION), curation, len(self.info.classes), class_label)

    def sums(self) -> LatentSums:
        """Read the sums behind the statistics, in whole numbers.

        Raises:
            ConfigError: The artifact stores none.
            ArtifactFormatError: They are damaged, or were not downloaded (`with_moments`).
        """
        if MOMENTS not in self.sha256:
            raise ConfigError(f"the artifact {self.info.name} stores no sums ({MOMENTS}); build it with them")
        return read_moments(self.check(MOMENTS), self.info)

    def embeddings(self) -> PromptEmbeddings:
        """Read what the model's text encoders made of the prompts.

        Raises:
            ConfigError: The artifact stores no embeddings.
            ArtifactIntegrityError: The file differs from its checksum.
            ArtifactFormatError: It is not what a build writes.
        """
        if not self.info.embeddings:
            raise ConfigError(f"the artifact {self.info.name} stores no embeddings of prompts")
        return read_embeddings(self.check(EMBEDDINGS), len(self.info.classes))
