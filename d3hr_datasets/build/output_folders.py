"""The folders of a build: where the artifact goes, and where finished chunks are kept, apart from each other.

In: paths as people write them. Out: whole paths, checked so that nothing is taken for what it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from d3hr_datasets.artifact.d3hr_json import METADATA, STATISTICS
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import is_folder

# What an artifact's folder may hold before it is built.
EXPECTED = {METADATA, STATISTICS, "model", CARD, ".gitattributes", ".gitignore"}


@dataclass(frozen=True)
class BuildPlaces:
    """Where a build writes; nothing is there for having one.

    Args:
        output: Folder of the artifact.
        work: Folder of finished chunks, shared by all machines.
    """

    output: Path
    work: Path


def choose_places(images: str | None, output: str | Path, work: str | Path | None = None) -> BuildPlaces:
    """Return the folders of a build, checked.

    Args:
        images: The source; None where it is in memory.
        output: Folder of the artifact.
        work: Folder of finished chunks; by default OUTPUT.chunks.

    Raises:
        ConfigError: `output` holds other files, or one of the folders lies in another.
    """
    output = expand_user(output).absolute()
    check_output(output)
    work = output.with_name(f"{output.name}.chunks") if work is None else expand_user(work).absolute()
    if work.resolve().is_relative_to(output.resolve()):
        raise ConfigError(f"the folder {work} for finished chunks is in the artifact; give another --work")
    if images is not None and is_folder(Path(images).resolve()):
        for name, place in (("--output", output), ("--work", work)):
            if place.resolve().is_relative_to(Path(images).resolve()):
                raise ConfigError(f"{place} is in the folder of the images, {images}; give another {name}")
    return BuildPlaces(output, work)


def check_output(output: Path) -> None:
    """Check that a folder is an artifact's or free: all files in it become part of the artifact.

    Raises:
        ConfigError: It has other files.
    """
    if output.is_dir():
        strangers = sorted(path.name for path in output.iterdir() if path.name not in EXPECTED)
        strangers = [name for name in strangers if not name.startswith(".")]
        if strangers:
            raise ConfigError(f"{output} has other files in it ({strangers[:5]}); give a folder of its own")
        return
    existing = next(place for place in (output.absolute(), *output.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"{existing} is no folder; give another --output")
