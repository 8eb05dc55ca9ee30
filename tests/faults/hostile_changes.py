"""What the cases of the campaign `hostile` have in common: an artifact's files, and how they are replaced."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

from d3hr_datasets import D3HRDataset
from tests.faults.hostile import Case
from tests.faults.hostile_hubs import WEIGHTS
from tests.support.tampering import METADATA, STATISTICS

FILES = (
    METADATA,
    STATISTICS,
    f"model/transformer/{WEIGHTS}",
    f"model/vae/{WEIGHTS}",
    "model/transformer/config.json",
    "model/vae/config.json",
    "model/scheduler/scheduler_config.json",
    "model/model_index.json",
)


def use_images(folder: Path) -> object:
    return D3HRDataset(folder / "case" / "folder", folder / "cache", 1, device="cpu", classes=[0])[0]


def changed(source: Path, change: Callable[[Path], object], use: Callable[[Path], object]) -> Case:
    """Return a case that copies a folder, changes the copy and uses it."""

    def case(folder: Path) -> Callable[[], object]:
        shutil.copytree(source, folder / "case" / "folder")
        change(folder / "case" / "folder")
        return functools.partial(use, folder)

    return case


def of_others(path: Path, name: str) -> Path:
    """Return a file of others, from the path of a file of a case."""
    return next(above for above in path.parents if above.name == "case").parent / "others" / name


def linked_to(name: str, path: Path) -> None:
    path.unlink()
    path.symlink_to(name if name.startswith("/") else of_others(path, name))


def replaced(name: str, replace: Callable[[Path], object], folder: Path) -> None:
    (folder / name).unlink()
    replace(folder / name)
