"""The classes of some artifacts -> those of their union, and the label that each class of each part gets.

Classes that have one name are one class. Those of the first part keep their labels; those that the next one
adds follow, in its order, and so on. Classes of a model of class labels are the same in all parts.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.config.prompts import Prompts
from d3hr_datasets.errors import CombineError


@dataclass(frozen=True)
class UnitedClasses:
    """The classes of a merged artifact.

    Args:
        names: By class label.
        wnids: WordNet IDs, or None.
        prompts: Of the classes, where the model takes some.
        labels: Of each part, the new label of each of its own.
    """

    names: tuple[str, ...]
    wnids: tuple[str, ...] | None
    prompts: Prompts | None
    labels: tuple[tuple[int, ...], ...]


def unite_classes(parts: Sequence[Artifact]) -> UnitedClasses:
    """Unite the classes of artifacts that agree.

    Raises:
        CombineError: A class has another WordNet ID or another prompt in another part, two classes have one
            WordNet ID, or some parts have such IDs and others none.
    """
    _check_spelling(parts)
    names: dict[str, int] = {}
    labels = tuple(tuple(names.setdefault(name, len(names)) for name in part.info.classes) for part in parts)
    prompts = None
    if parts[0].info.prompts is not None:
        per_class = _of_classes(parts, labels, "prompt")
        prompts = Prompts(tuple(per_class), parts[0].info.prompts.negative)
    return UnitedClasses(tuple(names), _united_wnids(parts, labels), prompts, labels)


def _check_spelling(parts: Sequence[Artifact]) -> None:
    """Check that names which look the same are the same: Unicode has several ways to write an accent.

    Nor may they differ in case and "_" alone, by which folders are not told apart, unless both are classes of
    one part.
    """
    spelled: dict[str, tuple[str, Artifact]] = {}
    for part in parts:
        for name in part.info.classes:
            plain = unicodedata.normalize("NFC", name).replace("_", " ").lower()
            before, where = spelled.setdefault(plain, (name, part))
            if before != name and not any({before, name} <= set(one.info.classes) for one in parts):
                raise CombineError(
                    f"class {name!r} is written otherwise in {where.folder} ({before!a}) than in "
                    f"{part.folder} ({name!a}), in case, '_' or Unicode characters; build one of them again "
                    "with the names of the other"
                )


def _united_wnids(parts: Sequence[Artifact], labels: Sequence[Sequence[int]]) -> tuple[str, ...] | None:
    without = [part.folder for part in parts if part.info.wnids is None]
    if len(without) == len(parts):
        return None
    if without:
        having = next(part.folder for part in parts if part.info.wnids is not None)
        raise CombineError(
            f"wnids are given in {having} and none in {without[0]}; artifacts merge where all have WordNet "
            "IDs, or none: build one of them again with the class list of the other"
        )
    found = _of_classes(parts, labels, "WordNet ID")
    twice = next((wnid for wnid, number in Counter(found).items() if number > 1), None)
    if twice is not None:
        called = [
            name
            for part in parts
            for name, wnid in zip(part.info.classes, part.info.wnids or (), strict=True)
            if wnid == twice
        ]
        raise CombineError(
            f"the WordNet ID {twice!r} is that of {' and of '.join(map(repr, dict.fromkeys(called)))}; "
            "build one of the parts again with the names of the other"
        )
    return tuple(found)


def _of_classes(parts: Sequence[Artifact], labels: Sequence[Sequence[int]], what: str) -> list[str]:
    """Return what is said of each class, which must be the same wherever it is said."""
    found: dict[int, tuple[str, Artifact]] = {}
    for part, of_part in zip(parts, labels, strict=True):
        info = part.info
        values = (
            info.wnids if what == "WordNet ID" else None if info.prompts is None else info.prompts.per_class
        )
        for name, label, value in zip(info.classes, of_part, values or (), strict=True):
            before, where = found.setdefault(label, (value, part))
            if before != value:
                raise CombineError(
                    f"the {what} of class {name!r} is {before!r:.300} in {where.folder} and {value!r:.300} "
                    f"in {part.folder}; artifacts merge where it is the same: build one of them again as the "
                    "other"
                )
    return [found[label][0] for label in sorted(found)]
