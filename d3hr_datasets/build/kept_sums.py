"""What a build keeps besides the statistics, so that its artifact can be merged, and images be forgotten.

In: files as people name them. Out: the same, checked, and the owner's key.
"""

from __future__ import annotations

import contextlib
import glob
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.d3hr_json import MOMENTS
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.membership import (
    Membership,
    default_key,
    open_key,
    read_membership,
    write_membership,
)
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
        if self.paths[0].is_symlink():
            raise ConfigError(
                f"membership={str(self.paths[0])!r} is a link, which would become a file of its own; give "
                "the file that it leads to"
            )
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
        if not _is_of(noted, output):
            old = [str(one) for one in sorted(path.parent.glob(f"{glob.escape(path.name)}.*.old"))]
            hint = f" One that a killed build has moved aside is in {', '.join(old)}." if old else ""
            raise ConfigError(
                f"membership={str(path)!r} is there, and is that of another artifact than {output} "
                f"(its {MOMENTS} has the SHA-256 {noted}), of which nothing could be forgotten any more "
                f"without it; give another file, or move it away.{hint}"
            )

    @contextlib.contextmanager
    def restored(self, output: Path) -> Iterator[None]:
        """Have the membership that is there back if the artifact that it is of is not replaced after all.

        Of a process that is killed meanwhile it stays beside the new one, as NAME.*.old.

        Args:
            output: Folder of the artifact.
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
            if _is_of(read_membership(before).moments, output):
                before.replace(path)
            else:  # it has been replaced, by that of the membership that is there now
                before.unlink()
            raise
        before.unlink()

    def begin(self, info: ArtifactInfo, output: Path, processes: Any) -> OpenMembership | None:
        """Return where membership is noted, checked as `check`; the first process makes a missing key.

        None where none is noted.
        """
        self.check(info, output)
        if self.membership is None:
            return None
        path, key = self.paths
        with processes.main_process_first():
            return OpenMembership(path, open_key(key, make=True), _digest(path))


@dataclass(frozen=True)
class OpenMembership:
    """Where a build notes the membership of its images.

    Args:
        path: The file.
        key: The secret key.
        before: SHA-256 of the file when the build began, which it may replace; None where there was none.
    """

    path: Path
    key: bytes
    before: str | None

    def check(self) -> None:
        """Check that nobody has written the file since the build began.

        Raises:
            ConfigError: Somebody has.
        """
        if _digest(self.path) != self.before:
            raise ConfigError(
                f"membership={str(self.path)!r} has been written by another build meanwhile, of whose "
                "artifact nothing could be forgotten any more without it; run this build again with a file "
                "of its own, which goes on from the finished chunks"
            )

    def write(self, noted: Membership) -> None:
        """Write the membership.

        Raises:
            ConfigError: As `check`.
        """
        self.check()
        try:
            write_membership(self.path, noted, must_be_new=self.before is None)
        except FileExistsError:
            self.check()
            raise


def open_membership(
    sums: KeptSums | None, info: ArtifactInfo, output: Path, processes: Any
) -> tuple[OpenMembership | None, bytes | None]:
    """Return where membership is noted, and its key; both None where none is."""
    noted = None if sums is None else sums.begin(info, output, processes)
    return noted, None if noted is None else noted.key


def _digest(path: Path) -> str | None:
    return file_sha256(path) if is_file(path) else None


def _is_of(moments: str, output: Path) -> bool:
    """Return whether the sums in a folder are those that a membership notes."""
    return is_file(output / MOMENTS) and file_sha256(output / MOMENTS) == moments


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
