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
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"no protocol is named {protocol!r}{hint} Known: {', '.join(protocol_names())}")
    found = []
    for path in (PROTOCOLS / protocol).glob("*.yaml"):
        match = _FILE.fullmatch(path.stem)
        if path.name != "base.yaml" and match is not None:
            found.append(PackagedFile(path, match["dataset"], int(match["ipc"] or 0)))
    return sorted(found, key=lambda file: (file.dataset, file.ipc))


def student_settings(
    protocol: str, dataset: str, ipc: int, changes: dict[str, Any]
) -> tuple[StudentSettings, list[str]]:
    """Return the settings of a student by a packaged protocol.

    For a number of images without a file, the settings of the next smaller one are taken (of the smallest, if
    there is none); for a folder of real images, those of the data set whose images are nearest in size, with
    image size, channels, mean and standard deviation of the folder's own images.

    Args:
        protocol: "dc", "dsa", "rded", "d3hr", "minimax", "igd", "soft" or "teacher".
        dataset: A data set that the protocol has settings for, or a folder with `train` and `val` or `test`,
            each with one folder per class.
        ipc: Images per class; 0 for the whole set.
        changes: Settings to change, as fields of `StudentSettings`.

    Returns:
        The settings, and sentences that say what was taken over from where.

    Raises:
        ConfigError: There is no such protocol or data set, or a setting is not accepted.
    """
    files, notes, own = packaged_files(protocol), [], {}
    known = sorted({file.dataset for file in files})
    if dataset not in known:
        if not Path(dataset).expanduser().is_dir():
            raise ConfigError(
                f"protocol {protocol!r} has no settings for {dataset!r}; accepted: {', '.join(known)}, or a "
                "folder with train/ and val/, each with one folder per class"
            )
        own = {"dataset": dataset, "teacher": "", "subset": "", **measure_images(Path(dataset).expanduser())}
        shipped = {file.dataset: read_yaml(file.path) for file in files}
        wanted = changes.get("image_size", own["image_size"])
        known_as = min(shipped, key=lambda name: (abs(shipped[name]["image_size"] - wanted), name))
        if shipped[known_as].get("resize"):
            own["resize"] = wanted // 7 * 8  # as all protocols that have it do
        notes.append(
            f"{dataset}: settings of {known_as}, with images of {wanted} x {wanted} pixels, channels "
            f"({own['channels']}), mean and standard deviation as measured on them"
        )
    else:
        known_as = dataset
    of_set = [file for file in files if file.dataset == known_as]
    file = max((file for file in of_set if file.ipc <= ipc), key=lambda file: file.ipc, default=of_set[0])
    if file.ipc not in {ipc, 0}:
        notes.append(
            f"protocol {protocol!r} has no settings for {ipc} images per class of {known_as}; those of "
            f"{file.ipc} are taken"
        )
    values = {**own, **({"ipc": ipc} if file.ipc else {}), **changes}
    overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return load_settings(StudentSettings, file.path, overrides), notes
