"""Classes of anybody's images -> labels of the real data set.

In: names of the classes that were found, in the order of their labels, or labels without names. Out: the real
label of each. The rules, of which the first that fits is taken:

1. Every name is that of a real class: the name itself, a synonym, a WordNet ID, or the name of a folder as
   exports of this library spell it ("003-Dress"; `ClassList.find_folder`).
2. Every name is a number from 0 on, with or without the same prefix ("7", "007", "new007", "class_7"), and
   each number is a real label.

Labels without names are real labels. Nothing else is certain, and a wrong order shows in nothing but the
accuracy. So it is refused, unless the user says that the sorted order of the names is that of the real labels
(`class_order="same"`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.folders import class_folders
from d3hr_datasets.classes.matching import LabelMap
from d3hr_datasets.errors import SourceError

ClassOrder = Literal["name", "same"]
_NUMBERED = re.compile(r"(?P<prefix>.*?(?<![0-9]))(?P<number>[0-9]{1,9})", re.DOTALL)
_MENDS = (
    "rename the folders or classes to the names, WordNet IDs or labels of the real data set, or say "
    "class_order='same' if their sorted order is that of its labels"
)


def labels_by_name(
    found: Sequence[str], real: ClassList, everything: ClassList, order: ClassOrder, where: str
) -> LabelMap:
    """Return the real label of each class that was found.

    Args:
        found: Names in the order of the labels that the images have.
        real: The classes that are wanted, by real label.
        everything: All classes of the real data set, of which `real` may be a part; images of others are
            left out.
        order: "name", or "same": the user says that sorted names are in the order of the real labels.
        where: What errors call the set.

    Raises:
        SourceError: A class has no certain counterpart, or two have the same.
    """
    if order == "same":
        return _same_order(found, real, where)
    folders = {folder: label for label, folder in enumerate(class_folders(real.names))}
    labels: LabelMap = {}
    unknown: list[str] = []
    for place, name in enumerate(found):
        label = folders.get(name, real.find_folder(name))
        labels[place] = label
        if label is None and everything.find_folder(name) is None:
            unknown.append(name)
    if unknown:
        by_number = _numbers(found)
        if by_number is None or not all(
            number < len(real.names) and labels[place] in (None, number)
            for place, number in enumerate(by_number)
        ):
            raise SourceError(
                f"{where}: {len(unknown)} of {len(found)} classes are not certainly classes of the real data "
                f"set: {some(unknown)}; it has {some(real.names)}. {_MENDS}"
            )
        labels = dict(enumerate(by_number))
    known = [label for label in labels.values() if label is not None]
    twice = sorted({label for label in known if known.count(label) > 1})
    if twice:
        names = [name for place, name in enumerate(found) if labels[place] == twice[0]]
        raise SourceError(f"{where}: {some(names)} are all {real.names[twice[0]]!r}; put them into one class")
    return labels


def labels_by_number(found: Iterable[int], real: ClassList, where: str) -> LabelMap:
    """Return the same labels.

    Raises:
        SourceError: One is no label of the real data set.
    """
    labels = sorted(set(found))
    beyond = [label for label in labels if not 0 <= label < len(real.names)]
    if beyond:
        raise SourceError(
            f"{where} has labels {beyond[0]} to {beyond[-1]}; accepted: 0 to {len(real.names) - 1}, labels "
            "of the real data set in its order. Change the labels, or remove their images"
        )
    return {label: label for label in labels}


def check_all_there(labels: Iterable[int], real: ClassList, where: str) -> None:
    """Check that every class has an image.

    Raises:
        SourceError: Some have none; the message names them.
    """
    there = set(labels)
    missing = [name for label, name in enumerate(real.names) if label not in there]
    if missing:
        raise SourceError(
            f"{where} has no image of {len(missing)} of {len(real.names)} classes: {some(missing, 20)}. Add "
            "images of these, or give as subset the classes that are there"
        )


def some(names: Sequence[str], number: int = 5) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(map(repr, names[:number])) + more


def _numbers(names: Sequence[str]) -> list[int] | None:
    """Return the numbers that names end with after a prefix that all share; None if they are others."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    parts = [(match["prefix"], match["number"]) for match in matches if match is not None]
    if len(parts) < len(names) or len({prefix for prefix, _ in parts}) > 1:
        return None
    return [int(number) for _, number in parts]


def _same_order(found: Sequence[str], real: ClassList, where: str) -> LabelMap:
    if len(found) != len(real.names):
        raise SourceError(
            f"{where} has {len(found)} classes, the real data set {len(real.names)}; with class_order='same' "
            "they must be as many"
        )
    in_order = sorted(range(len(found)), key=lambda place: found[place])
    numbers = _numbers(found)
    if numbers is not None and in_order != sorted(range(len(found)), key=lambda place: numbers[place]):
        raise SourceError(
            f"{where}: the order of {some([found[place] for place in in_order])} is another one by number; "
            "fill the numbers up with zeros, so that it is certain which is meant"
        )
    labels: LabelMap = {place: label for label, place in enumerate(in_order)}
    for place, label in labels.items():
        meant = real.find_folder(found[place])
        if meant is not None and meant != label:
            raise SourceError(
                f"{where}: class_order='same' makes {found[place]!r} label {label}, but it is the name of "
                f"label {meant} of the real data set ({real.names[meant]!r}); leave class_order out, so that "
                "names are matched"
            )
    return labels
