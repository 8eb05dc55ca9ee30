"""Where the diffusion model of an artifact is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from d3hr_datasets.config.json_settings import JsonSettings
from d3hr_datasets.errors import ConfigError


@dataclass(frozen=True)
class ModelReference(JsonSettings):
    """Where the diffusion model of an artifact is.

    Either a Hub repository at a revision, or a folder inside the artifact, in diffusers' layout.

    Args:
        repo_id: "ORG/NAME" on the Hub, or None.
        revision: The commit of `repo_id`, all 40 digits; needed with it. Branches and tags may move.
        path: A relative POSIX path inside the artifact, or None.
    """

    repo_id: str | None = None
    revision: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if (self.repo_id is None) == (self.path is None):
            raise ConfigError("ModelReference needs either repo_id with revision, or path")
        if self.path is not None:
            path = PurePosixPath(self.path) if isinstance(self.path, str) else None
            if (
                path is None
                or self.path in {"", "."}
                or path.as_posix() != self.path
                or path.is_absolute()
                or ".." in path.parts
                or "\\" in self.path
                or ":" in self.path
                or "\0" in self.path
            ):
                raise ConfigError(
                    f"ModelReference.path must be a relative path inside the artifact, not {self.path!r}"
                )
            if self.revision is not None:
                raise ConfigError("ModelReference.revision goes with repo_id, not with path")
        else:
            if not isinstance(self.repo_id, str) or not re.fullmatch(
                r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", self.repo_id
            ):
                raise ConfigError(f"ModelReference.repo_id must be ORG/NAME, not {self.repo_id!r}")
            if not isinstance(self.revision, str) or not re.fullmatch(r"[0-9a-f]{40}", self.revision):
                raise ConfigError(
                    f"ModelReference of {self.repo_id} needs a revision, the 40 hexadecimal digits of the "
                    f"commit whose latents the statistics describe, not {self.revision!r}"
                )
