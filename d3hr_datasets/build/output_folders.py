"""The folders of a build: where the artifact goes, and where finished chunks are kept, apart from each other.

In: paths as people write them. Out: whole paths, checked so that nothing is taken for what it is not.
"""

from __future__ import annotations

import contextlib
import filecmp
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from d3hr_datasets.artifact.d3hr_json import ADAPTER, EMBEDDINGS, METADATA, MOMENTS, STATISTICS, read_metadata
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.diffusion.adapters import FILES as ADAPTER_FILES
from d3hr_datasets.diffusion.layout import INDEX, PARTS
from d3hr_datasets.errors import ConfigError, D3HRError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import is_folder
from d3hr_datasets.sources.opening import folder_of

# What an artifact's folder may hold before it is built.
EXPECTED = {METADATA, STATISTICS, MOMENTS, "model", CARD, ".gitattributes", ".gitignore"}


@dataclass(frozen=True)
class BuildPlaces:
    """Where a build writes; nothing is there for having one.

    Args:
        output: Folder of the artifact.
        work: Folder of finished chunks, shared by all machines.
    """

    output: Path
    work: Path


def choose_places(
    images: str | None,
    output: str | Path,
    work: str | Path | None = None,
    model: str | None = None,
    adapter: Path | None = None,
) -> BuildPlaces:
    """Return the folders of a build, checked.

    Args:
        images: The source; None where it is in memory.
        output: Folder of the artifact.
        work: Folder of finished chunks; by default OUTPUT.chunks.
        model: The folder of the diffusion model, or where it is on the Hub.
        adapter: The folder of its adapter, if there is one.

    Raises:
        ConfigError: `output` holds other files, or one of the folders lies in another.
    """
    output = expand_user(output).absolute()
    _check_output_and_adapter(output, EXPECTED, adapter)
    work = output.with_name(f"{output.name}.chunks") if work is None else expand_user(work).absolute()
    _check_apart(output, work, model)
    folder = None if images is None else folder_of(images)
    if folder is not None:
        for name, place in (("--output", output), ("--work", work)):
            if place.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f"{place} is in the folder of the images, {images}; give another {name}")
    return BuildPlaces(output, work)


def check_places(output: Path, work: Path, model: str, adapter: Path | None = None) -> None:
    """Check the folders of a build that was planned before: what is in them may have changed.

    Args:
        output: Folder of the artifact. It may hold what its `d3hr.json` lists.
        work: Folder of finished chunks.
        model: The folder of the diffusion model, or where it is on the Hub.
        adapter: The folder of its adapter, if there is one.

    Raises:
        ConfigError: As `choose_places`.
    """
    listed = set()
    if (output / METADATA).is_file():
        with contextlib.suppress(D3HRError):  # it is replaced, whatever it says
            listed = {name.partition("/")[0] for name in read_metadata(output)[1]}
    _check_output_and_adapter(output, EXPECTED | listed, adapter)
    _check_apart(output, work, model)


def _check_output_and_adapter(output: Path, expected: Collection[str], adapter: Path | None) -> None:
    """Check a folder as `check_output`, and that no adapter but an earlier artifact's is replaced."""
    has_adapter = adapter is not None
    if (output / METADATA).is_file():
        with contextlib.suppress(D3HRError):  # it is replaced, whatever it says
            info = read_metadata(output)[0]
            has_adapter |= info.adapter
            expected = {*expected, *([EMBEDDINGS] if info.embeddings else [])}
    check_output(output, {*expected, *([ADAPTER] if has_adapter else [])})
    place = output / ADAPTER
    if not place.is_dir() or place.is_symlink() or (adapter and place.resolve() == adapter.resolve()):
        return
    if adapter is not None and adapter.resolve().is_relative_to(place.resolve()):
        raise ConfigError(f"the adapter {adapter} is in {place}, which its copy replaces; move it")
    found = [path.relative_to(place).as_posix() for path in place.rglob("*") if not path.is_dir()]
    others = sorted(name for name in found if name not in ADAPTER_FILES)
    if adapter is not None and not (output / METADATA).exists():  # of a build that was killed, or the user's
        others += [
            name for name in found if name in ADAPTER_FILES and not _is_copy(place / name, adapter / name)
        ]
    if others:
        raise ConfigError(
            f"{place} has files that are no copy of an adapter ({others[:5]}), and would be replaced; move "
            "them, or "
            "give another --output"
        )


def _check_apart(output: Path, work: Path, model: str | None) -> None:
    if work.resolve().is_relative_to(output.resolve()):
        raise ConfigError(f"the folder {work} for finished chunks is in the artifact; give another --work")
    if model is not None:
        _check_model(output / "model", expand_user(model))


def _check_model(place: Path, model: Path) -> None:
    """Check that nothing but an earlier copy of a model is replaced by the copy of this one.

    Raises:
        ConfigError: There are files that no copy has, the model is below, or there is no artifact around it
            and it is another model.
    """
    if not place.is_dir() or place.is_symlink() or place.resolve() == model.resolve():
        return
    if model.resolve().is_relative_to(place.resolve()):
        raise ConfigError(
            f"the model {model} is in {place}, which its copy replaces; move it, or give another --output"
        )
    copied = {f"{part}/{name}" for part, names in PARTS.items() for name in names} | {INDEX, CARD}
    found = [path.relative_to(place).as_posix() for path in place.rglob("*") if not path.is_dir()]
    others = sorted(name for name in found if not any(fnmatch(name, pattern) for pattern in copied))
    # Without an artifact around it, it is that of a build that was killed, or the user's.
    if not (place.parent / METADATA).exists() and is_folder(model):
        others += [name for name in found if not _is_copy(place / name, model / name)]
    if others:
        raise ConfigError(
            f"{place} has files that are no copy of the model {model} ({others[:5]}), and would be replaced; "
            "move them, or give another --output"
        )


def _is_copy(path: Path, source: Path) -> bool:
    if not source.exists():  # of weights that are .bin files a copy is safetensors
        return path.suffix == ".safetensors" and not list(source.parent.glob("*.safetensors"))
    return filecmp.cmp(path, source, shallow=False)


def check_output(output: Path, expected: Collection[str] = EXPECTED) -> None:
    """Check that a folder is an artifact's or free: all files in it become part of the artifact.

    Args:
        output: The folder.
        expected: Names of what it may hold; hidden files and folders are no part of an artifact.

    Raises:
        ConfigError: It has other files.
    """
    if output.is_dir():
        strangers = sorted(path.name for path in output.iterdir() if path.name not in expected)
        strangers = [name for name in strangers if not name.startswith(".")]
        if strangers:
            raise ConfigError(f"{output} has other files in it ({strangers[:5]}); give a folder of its own")
        return
    existing = next(place for place in (output.absolute(), *output.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"{existing} is no folder; give another --output")
