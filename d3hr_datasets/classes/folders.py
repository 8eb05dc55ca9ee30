"""Class names as names of folders and files: the one grammar of the cache, exports, sources and reports.

    003-Bee_wasp    the label, in as many digits as the last one and at least three; "-"; the class name,
                    each run of anything but ASCII letters and digits as one "_"

In: class names. Out: names that any file system takes, whose order is that of the labels; and back, as far as
a name survives: `ClassList.find_folder` says which class a folder is of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_CLASS_FOLDER = re.compile(r"(?P<number>[0-9]{3,})-(?P<name>.*)", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_]*")
LONGEST = 100  # characters of a class name; file systems take 255 bytes, and more is added to them


def class_folders(class_names: Sequence[str]) -> list[str]:
    """Return the folder of each class, in the order of the labels. Equal names have folders of their own."""
    width = _number_width(len(class_names))
    return [f"{label:0{width}d}-{plain_name(name)}" for label, name in enumerate(class_names)]


def is_class_folder(folder: str, num_classes: int | None = None) -> bool:
    """Say whether `class_folders` gives this name to one of so many classes; of any number by default."""
    match = _CLASS_FOLDER.fullmatch(folder)
    if match is None or not _PLAIN.fullmatch(match["name"]):
        return False
    number = match["number"]
    return num_classes is None or (len(number) == _number_width(num_classes) and int(number) < num_classes)


def folder_number(folder: str) -> str:
    """Return the number that a class folder begins with; it names locks and partial folders, too."""
    return folder.partition("-")[0]


def without_number(folder: str) -> str:
    """Return the name of a class folder without its number; another name as it is."""
    match = _CLASS_FOLDER.fullmatch(folder)
    return match["name"] if match else folder


def _number_width(num_classes: int) -> int:
    """Return the number of digits that class folders begin with."""
    return max(3, len(str(num_classes - 1)))


def plain_name(class_name: str) -> str:
    """Return what is left of a class name in the name of a folder; of some names, nothing."""
    return re.sub(r"[^A-Za-z0-9]+", "_", class_name).strip("_")[:LONGEST].rstrip("_")


def file_stem(class_name: str) -> str:
    """Return a class name as that of a file: itself where it can be one, else its plain form.

    Raises:
        ValueError: Nothing is left of it.
    """
    usable = len(class_name.encode(errors="replace")) <= LONGEST and class_name.isprintable()
    if usable and not class_name.startswith(".") and not set(class_name) & set('/\\:*?"<>|'):
        return class_name
    plain = plain_name(class_name)
    if not plain:
        raise ValueError(f"the class {class_name[:LONGEST]!r} has no ASCII letter or digit to name a file by")
    return plain
