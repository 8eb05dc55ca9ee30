"""The set that is evaluated: what a user calls it -> images that students are trained on.

In: an artifact, the name of a data set, or images of anybody's. Out: its name, its settings, its size.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.dataset.artifact_registry import REGISTRY, registered_artifact
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments.own_images import settings_of_images
from d3hr_datasets.image_sets.training_set_settings import GROUPS
from d3hr_datasets.io.paths import expand_user

GENERATED = ("raw_diffusion", *GROUPS)  # sources of images that an artifact makes
_ON_THE_HUB = re.compile(r"(?!hfds/|hfids/)[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class EvaluatedSet:
    """A set of images, and the real data set that it stands for.

    Args:
        name: For tables.
        dataset: The real data set, as `TrainingSet.dataset`.
        ipc: Images per class.
        settings: Which say what a student sees, as fields of `StudentSettings`.
        num_bytes: What the set takes, by part, in bytes.
        notes: Sentences about how the images were read.
    """

    name: str
    dataset: str
    ipc: int
    settings: dict[str, Any]
    num_bytes: dict[str, int]
    notes: tuple[str, ...] = ()


def is_artifact(where: str) -> bool:
    """Say whether this is an artifact: the name of a data set, a folder of one, or ORG/NAME[@REVISION]."""
    if where in REGISTRY or (Path(where).expanduser() / METADATA).is_file():
        return True
    path = Path(where).expanduser()
    is_here = path.exists() or path.parent.is_dir()  # a mistyped name beside others of this machine
    is_file = path.suffix in {".pt", ".pth", ".safetensors", ".parquet", ".tar"}
    return not (is_here or is_file) and _ON_THE_HUB.fullmatch(where) is not None


def artifact_to_evaluate(where: str, dataset: str | None, ipc: int, source: str = "default") -> EvaluatedSet:
    """Return the set that an artifact gives.

    Args:
        where: As `is_artifact` takes it.
        dataset: The real data set; by default the named one that the artifact is of.
        ipc: Images per class.
        source: How it makes the images, one of `GENERATED`.

    Raises:
        ArtifactNotFoundError: There is no artifact.
        ConfigError: The real data set is not given and not known, there is no such source, or the artifact
            does not have what it needs.
    """
    if source not in GENERATED:
        raise ConfigError(f"source = {source!r} is no way to make images of an artifact: {GENERATED}")
    artifact = Artifact.from_pretrained(registered_artifact(where) if where in REGISTRY else where)
    given, dataset = dataset, dataset or (where if where in REGISTRY else artifact.info.name)
    if given is None and dataset not in REGISTRY and not Path(dataset).expanduser().is_dir():
        raise ConfigError(
            f"the artifact {artifact.info.name} is of no data set known by name ({sorted(REGISTRY)}), "
            f"and {dataset!r} is no folder; say with --real where its real images are: a folder with train/ "
            "and val/"
        )
    if source == "curated":
        artifact.info.check_curated(ipc)
    if source == "modes":
        artifact.info.check_modes()
    files = {path.relative_to(artifact.folder): path for path in artifact.folder.rglob("*") if path.is_file()}
    num_bytes = {"artifact": sum(path.stat().st_size for path in files.values())}
    num_bytes["diffusion model in it"] = sum(
        path.stat().st_size for name, path in files.items() if name.parts[0] == "model"
    )
    place = where if where not in REGISTRY else ""
    if place and artifact.repo_id is not None:  # the commit of now, for all students
        place = f"{artifact.repo_id}@{artifact.revision}"
    settings = {"source": source, "artifact": place}
    how = "" if source == "default" else f", {source.replace('_', ' ')}"
    return EvaluatedSet(f"distilled ({artifact.info.name}{how})", dataset, ipc, settings, num_bytes)


def images_to_evaluate(where: str, protocol: str, dataset: str, changes: dict[str, Any]) -> EvaluatedSet:
    """Return a set of images of anybody's.

    Args:
        where: As `open_image_set` takes it.
        protocol: By which it is evaluated.
        dataset: The real data set, as `choose_protocol` takes it.
        changes: Settings of students to change.

    Raises:
        SourceError: The set cannot be opened, or its classes are not certainly those of the real images.
        UnreadableImageError: An image cannot be read, or not be converted without a loss.
    """
    settings, images = settings_of_images(where, protocol, dataset, changes)
    place = expand_user(where.removeprefix("hfds/"))
    files = [place]
    if place.is_dir():
        walked = os.walk(place, followlinks=True)
        files = [Path(parent) / name for parent, _, names in walked for name in names]
    found = [path.stat().st_size for path in files if path.is_file()]
    num_bytes = {"files": sum(found)} if found else {}
    return EvaluatedSet(place.name or where, dataset, settings["ipc"], settings, num_bytes, images.notes)
