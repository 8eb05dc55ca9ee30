"""The named data sets, one row each, and what of them ships with the package.

In: a name. Out: the folder of its artifact or teacher, or where on the Hub the artifact is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from d3hr_datasets.config.defaults import INVERSION_STEPS
from d3hr_datasets.errors import ArtifactNotFoundError, ConfigError, TeacherError

# Of DiT-XL/2 at 256 pixels: `python -m recipes.evaluate.flops`. `recipes/IMAGENET.md` says more.
FLOP_PER_EVALUATION = 237.3e9
FLOP_PER_ENCODING = 272.7e9
FLOPS_OF_H100 = 0.4 * 989e12  # peak in bfloat16 at a utilisation that is assumed


@dataclass(frozen=True)
class RegistryRow:
    """A named data set.

    Args:
        name: Its name, and that of its class list in `classes/`.
        folder: Folder under `hub/` of the artifact that ships with the package, or None.
        repo_id: "ORG/NAME" of the artifact on the Hub, or None while it is not published.
        revision: The commit of `repo_id`, always a whole hash.
        num_images: Training images that building the artifact inverts.
        num_evaluations: Model evaluations for each of them.
        sha256: Checksum of the `d3hr.json` at `revision`, which lists those of all other files.

    Raises:
        ConfigError: `repo_id` comes without a whole revision and checksum.
    """

    name: str
    folder: str | None = None
    repo_id: str | None = None
    revision: str | None = None
    num_images: int = 0
    num_evaluations: int = INVERSION_STEPS
    sha256: str | None = None

    def __post_init__(self) -> None:
        pinned = re.fullmatch(r"[0-9a-f]{40}", self.revision or "")
        if self.repo_id is not None and not (pinned and re.fullmatch(r"[0-9a-f]{64}", self.sha256 or "")):
            raise ConfigError(
                f"the row {self.name!r} fetches {self.repo_id}: it needs a revision of 40 hexadecimal "
                f"digits, not {self.revision!r}, and the SHA-256 of d3hr.json there, not {self.sha256!r}"
            )


REGISTRY = {
    row.name: row
    for row in (
        RegistryRow("imagenet", num_images=1_281_167),
        RegistryRow("tiny-imagenet", num_images=100_000),
        RegistryRow("cifar10", num_images=50_000),
        RegistryRow("cifar100", num_images=50_000),
        RegistryRow("fashion-mnist", "d3hr-fashion-mnist", num_images=60_000),
    )
}

# The folder under `hub/` of each teacher that ships with the package, by the data set whose classes it knows.
EMBEDDED_TEACHERS = {"fashion-mnist": "fashion-mnist-teacher"}


def registered_artifact(name: str) -> str | Path:
    """Return where the artifact of a named data set is: a folder, or "ORG/NAME@REVISION".

    Raises:
        ArtifactNotFoundError: There is no such data set, its artifact is not published yet, or the
            installation lacks it.
    """
    row = _row(name)
    if row.folder is not None:
        return embedded_artifact(name)
    if row.repo_id is not None:
        return f"{row.repo_id}@{row.revision}"
    total = row.num_images * row.num_evaluations
    hours = (total * FLOP_PER_EVALUATION + row.num_images * FLOP_PER_ENCODING) / FLOPS_OF_H100 / 3600
    raise ArtifactNotFoundError(
        f"no artifact of {name} is published yet. Give one with artifact=FOLDER or artifact='ORG/NAME', or "
        f"build it from {row.num_images:,} training images x {row.num_evaluations} model evaluations "
        f"({total:,} in all; with DiT-XL/2 at 256 pixels {hours:.1f} hours of one H100, if it reaches 40 % "
        "of its peak, which is assumed):\n"
        f"  d3hr build FOLDER --class-list {name} --model MODEL --name {name} --output d3hr-{name}\n"
        f"  d3hr card d3hr-{name} ORG/d3hr-{name}\n"
        f"  d3hr publish d3hr-{name} ORG/d3hr-{name}"
    )


def embedded_artifact(name: str) -> Path:
    """Return the folder of an artifact that ships with this package.

    Raises:
        ArtifactNotFoundError: There is no such data set, or the installation lacks it.
    """
    folder = _row(name).folder
    if folder is None:
        raise ArtifactNotFoundError(f"no artifact of {name} ships with this package; give artifact=FOLDER")
    return _embedded_folder(folder, f"artifact of {name}")


def embedded_teacher(name: str) -> Path:
    """Return the folder of a teacher that ships with this package, as timm's "local-dir:" takes it.

    Args:
        name: A name of `EMBEDDED_TEACHERS`: that of the data set whose classes it knows.

    Raises:
        TeacherError: There is no such teacher.
        ArtifactNotFoundError: The installation lacks it.
    """
    if name not in EMBEDDED_TEACHERS:
        raise TeacherError(
            f"no teacher of {name!r} ships with this package; accepted: "
            f"{[f'embedded:{known}' for known in EMBEDDED_TEACHERS]}, or local-dir:FOLDER for one of your own"
        )
    return _embedded_folder(EMBEDDED_TEACHERS[name], f"teacher of {name}")


def _embedded_folder(folder: str, what: str) -> Path:
    """Return a folder of `hub/`: in a wheel `d3hr_datasets/hub/`, in a checkout beside the package."""
    package = Path(__file__).resolve().parent.parent
    places = [base / "hub" / folder for base in (package, package.parent)]
    for place in places:
        if place.is_dir():
            return place
    raise ArtifactNotFoundError(
        f"the {what} is in none of {[str(place) for place in places]}; install the package again, from its "
        "wheel (`pip install --force-reinstall FILE.whl`) or in a clone (`pip install --force-reinstall .`)"
    )


def _row(name: str) -> RegistryRow:
    if name not in REGISTRY:
        raise ArtifactNotFoundError(f"no data set is named {name!r}; known: {sorted(REGISTRY)}")
    return REGISTRY[name]
