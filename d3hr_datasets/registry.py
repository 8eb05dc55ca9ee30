"""The named data sets, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from d3hr_datasets.errors import ArtifactNotFoundError


@dataclass(frozen=True)
class RegistryRow:
    """A named data set.

    Args:
        name: Its name.
        folder: Folder under `hub/` of the artifact that ships with the package.
    """

    name: str
    folder: str


REGISTRY = {row.name: row for row in (RegistryRow("fashion-mnist", "d3hr-fashion-mnist"),)}


def embedded_artifact(name: str) -> Path:
    """Return the folder of an artifact that ships with this package.

    In a wheel it is `d3hr_datasets/hub/`, in a checkout `hub/` beside the package.

    Raises:
        ArtifactNotFoundError: There is no such data set, or the installation lacks it.
    """
    if name not in REGISTRY:
        raise ArtifactNotFoundError(f"no data set is named {name!r}; known: {sorted(REGISTRY)}")
    package = Path(__file__).resolve().parent
    places = [base / "hub" / REGISTRY[name].folder for base in (package, package.parent)]
    for place in places:
        if place.is_dir():
            return place
    raise ArtifactNotFoundError(
        f"the artifact of {name} is in none of {[str(place) for place in places]}; install the package "
        "again: `pip install --force-reinstall d3hr-datasets`"
    )
