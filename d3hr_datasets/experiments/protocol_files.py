"""The packaged protocols: a protocol, a data set and a number of images per class -> settings of a student.

In: "soft", "fashion-mnist", 10. Out: the settings of `protocols/soft/fashion-mnist-ipc10.yaml`, and what was
taken over from another number of images, or another data set, where there is no such file.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.image_sets.own_data_sets import measure_images
from d3hr_datasets.runs.settings_files import load_settings, read_yaml

PROTOCOLS = Path(__file__).parent / "protocols"
_FILE = re.compile(r"(?P<dataset>[a-z0-9-]+?)(-ipc(?P<ipc>\d+))?")


@dataclass(frozen=True)
class PackagedFile:
    """A packaged settings file, and what its name says: a data set and images per class (0: all of them)."""

    path: Path
    dataset: str
    ipc: int


def protocol_names() -> list[str]:
    """Return the names of the packaged protocols."""
    return sorted(path.name for path in PROTOCOLS.iterdir() if (path / "base.yaml").is_file())


def packaged_files(protocol: str) -> list[PackagedFile]:
    """Return the settings files of a protocol, by data set and number of images.

    Raises:
        ConfigError: There is no such protocol.
    """
    if protocol not in protocol_names():
        near = difflib.get_close_matches(protocol, protocol_names(), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"no protocol is named {protocol!r}.{hint} Known: {', '.join(protocol_names())}")
    found = []
    for path in (PROTOCOLS / protocol).glob("*.yaml"):
        match = _FILE.fullmatch(path.stem)
        if path.name != "base.yaml" and match is not None:
            found.append(PackagedFile(path, match["dataset"], int(match["ipc"] or 0)))
    return sorted(found, key=lambda file: (file.dataset, file.ipc))


@dataclass(frozen=True)
class ProtocolChoice:
    """What a protocol says of a data set and a number of images per class.

    Args:
        path: The packaged settings file.
        changes: Settings that differ from the file.
        notes: Sentences that say what was taken over from where.
    """

    path: Path
    changes: dict[str, Any]
    notes: tuple[str, ...]

    def settings(self) -> StudentSettings:
        """Return the settings of a student.

        Raises:
            ConfigError: A setting is unknown, or has a value that is not accepted.
        """
        overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self.changes.items()]
        return load_settings(StudentSettings, self.path, overrides)


def choose_protocol(protocol: str, dataset: str, ipc: int, changes: dict[str, Any]) -> ProtocolChoice:
    """Return what a packaged protocol says of a data set and a number of images per class.

    For a number of images without a file, the settings of the next smaller one are taken (of the smallest, if
    there is none); for a folder of real images, those of the data set whose images are nearest in size, with
    image size, channels, mean and standard deviation of the folder's own images, and no teacher.

    Args:
        protocol: "dc", "dsa", "rded", "d3hr", "minimax", "igd", "soft" or "teacher".
        dataset: A data set that the protocol has settings for, or a folder with `train` and `val` or `test`,
            each with one folder per class.
        ipc: Images per class; 0 for the whole set.
        changes: Settings to change, as fields of `StudentSettings`.

    Raises:
        ConfigError: There is no such protocol or data set.
        SourceError: The folder has no images.
    """
    files = packaged_files(protocol)
    known = sorted({file.dataset for file in files})
    own: dict[str, Any] = {}
    notes, named = [], dataset
    if dataset not in known:
        folder = Path(dataset).expanduser()
        if not folder.is_dir():
            raise ConfigError(
                f"protocol {protocol!r} has no settings for {dataset!r}; accepted: {', '.join(known)}, or a "
                "folder with train/ and val/, each with one folder per class"
            )
        named, own = _of_own_images(files, folder, changes)
        notes.append(
            f"{dataset}: settings of {named}; image size ({changes.get('image_size', own['image_size'])}), "
            f"channels ({own['channels']}), mean and standard deviation are those of its own images"
        )
    of_set = [file for file in files if file.dataset == named]
    file = max((file for file in of_set if file.ipc <= ipc), key=lambda file: file.ipc, default=of_set[0])
    if file.ipc and file.ipc != ipc and ipc:
        notes.append(
            f"protocol {protocol!r} has no settings for {ipc} images per class of {named}; those of "
            f"{file.ipc} are taken"
        )
    number = {"ipc": ipc} if file.ipc else {}
    if changes.get("student", shipped_student := read_yaml(file.path)["student"]) != shipped_student:
        own["student_args"] = {}  # those of the protocol are of its own student
    return ProtocolChoice(file.path, {**own, **number, **changes}, tuple(notes))


def _of_own_images(
    files: list[PackagedFile], folder: Path, changes: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return the data set whose images are nearest in size, and what is the folder's own."""
    own: dict[str, Any] = {"dataset": str(folder), "teacher": "", "subset": "", **measure_images(folder)}
    shipped = {file.dataset: read_yaml(file.path) for file in files}
    size = changes.get("image_size", own["image_size"])
    named = min(shipped, key=lambda name: (abs(shipped[name]["image_size"] - size), name))
    if shipped[named].get("resize"):
        own["resize"] = size // 7 * 8  # as in all protocols that resize test images
    if shipped[named].get("export"):
        own["export"] = f"runs/teachers/{folder.name}"
    return named, own
