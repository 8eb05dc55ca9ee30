"""What a build keeps besides the statistics, so that its artifact can be merged, and images be forgotten.

In: files as people name them. Out: the same, checked, and the owner's key.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.d3hr_json import MOMENTS
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.membership import default_key, open_key, read_membership
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import file_sha256, is_file


@dataclass(frozen=True)
class KeptSums:
    """That the sums behind the statistics are kept, and perhaps whose they are.

    Args:
        membership: File of the keyed digest, class and mode of each image, outside the artifact; None for
            none.
        key: File of its secret key, made if it is missing; by default "membership.key" beside it.

    Raises:
        ConfigError: A key goes without a membership, or the two are one file.
    """

    membership: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if self.membership is None and self.key is not None:
            raise ConfigError(f"membership_key={str(self.key)!r} goes with membership; give both, or neither")
        if self.membership is not None and self.paths[0] == self.paths[1]:
            raise ConfigError(f"membership_key={str(self.key)!r} is the file of the membership; give another")

    @property
    def paths(self) -> tuple[Path, Path]:
        """The whole paths of the file of the membership, where there is one, and of its key."""
        path = expand_user(self.membership or "").absolute()
        return path, default_key(path) if self.key is None else expand_user(self.key).absolute()

    def check(self, info: ArtifactInfo, output: Path) -> None:
        """Check that the membership can be noted, and lies outside the artifact.

        Raises:
            ConfigError: It lies inside, another file, or the membership of another artifact, has its name,
                or samples of posteriors are inverted,
                which cannot be drawn again for one image.
        """
        if self.membership is None:
            return
        for path in self.paths:
            if path.resolve().is_relative_to(output.resolve()):
                raise ConfigError(
                    f"{path} is in the folder of the artifact, {output}, which may be published; a "
                    "membership and its key are their owner's alone: put them elsewhere"
                )
        self._check_replaced(output)
        if info.inversion.latent == "sample":
            raise ConfigError(
                "membership is for forgetting images, whose latents are inverted again, and latent='sample' "
                "draws them by the place of each image; build with latent='mean'"
            )

    def _check_replaced(self, output: Path) -> None:
        """Check that a membership that is there is that of the artifact that this one takes the place of."""
        path = self.paths[0]
        if not path.exists():
            return
        try:
            noted = read_membership(path).moments
        except ConfigError as error:
            raise ConfigError(
                f"membership={str(path)!r} is there, and is none; give another file ({error})"
            ) from error
        if not is_file(output / MOMENTS) or file_sha256(output / MOMENTS) != noted:
            raise ConfigError(
                f"membership={str(path)!r} is there, and is that of another artifact than {output} "
                f"(its {MOMENTS} has the SHA-256 {noted}), of which nothing could be forgotten any more "
                "without it; give another file, or move it away"
            )

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Have the membership that is there back if the artifact that it is of is not replaced after all.

        Of a process that is killed meanwhile it stays beside the new one, as NAME.*.old.
        """
        path = self.paths[0]
        if self.membership is None or not path.exists():
            yield
            return
        before = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.old")
        shutil.copy2(path, before)
        try:
            yield
        except BaseException:
            before.replace(path)
            raise
        before.unlink()

    def open_key(self) -> bytes | None:
        """Return the key, made if it is missing; None where no membership is noted."""
        return None if self.membership is None else open_key(self.paths[1], make=True)

    def open_key_of(self, info: ArtifactInfo, output: Path, processes: Any) -> bytes | None:
        """Return the key, checked as `check`; the first process makes it where it is missing."""
        self.check(info, output)
        with processes.main_process_first():
            return self.open_key()


def kept_sums(
    moments: bool, membership: str | Path | None = None, key: str | Path | None = None
) -> KeptSums | None:
    """Return what is kept, None where nothing is.

    Raises:
        ConfigError: Membership is to be noted and the sums are not kept, of which images would be forgotten.
    """
    if not moments and (membership, key) != (None, None):
        raise ConfigError(
            "membership is for forgetting images, which takes the sums behind the statistics: give "
            "moments=True, too"
        )
    return KeptSums(membership, key) if moments else None
