"""Class lists: the names of classes, in the order of the model's class labels.

A student, its teacher, the artifact and the diffusion model must mean the same class by a label: where one
order differs, training goes on without a complaint and ends at chance accuracy. So orders are compared
wherever two of them meet.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from d3hr_datasets.classes.folders import plain_name, without_number
from d3hr_datasets.errors import ArtifactFormatError, ConfigError, ModelFormatError


@dataclass(frozen=True)
class ClassList:
    """Names, and WordNet IDs where there are, by class label.

    Args:
        names: Distinct names.
        wnids: WordNet IDs, one for each name, or None.
    """

    names: tuple[str, ...]
    wnids: tuple[str, ...] | None = None

    @classmethod
    def packaged(cls, name: str) -> ClassList:
        """Return a class list that comes with this package, by the name of its file."""
        values = _read(name)
        return cls(tuple(values["names"]), tuple(values["wnids"]) if "wnids" in values else None)

    def labels(self, wanted: Sequence[str | int] | None) -> list[int]:
        """Return the class labels of classes given by name, WordNet ID or class label; None is all.

        Raises:
            ConfigError: A class is unknown or given twice, or none is given.
        """
        if wanted is None:
            return list(range(len(self.names)))
        known: dict[str | int, int] = {str(label): label for label in range(len(self.names))}  # command line
        known.update({wnid: label for label, wnid in enumerate(self.wnids or ())})
        known.update({name: label for label, name in enumerate(self.names)})
        known.update({label: label for label in range(len(self.names))})
        # A bool or a float would be found as an integer.
        unknown = [key for key in wanted if type(key) not in (int, str) or key not in known]
        if unknown or isinstance(wanted, str):
            shown = f"unknown classes {unknown[:10] if not isinstance(wanted, str) else repr(wanted)}"
            ids = "" if self.wnids is None else f" (or WordNet IDs such as {self.wnids[0]})"
            raise ConfigError(
                f"{shown}; accepted: a list of names{ids} or class labels 0 to {len(self.names) - 1}; "
                f"known: {list(self.names[:20])}{' ...' if len(self.names) > 20 else ''}"
            )
        labels = [known[key] for key in wanted]
        if not labels or len(set(labels)) != len(labels):
            raise ConfigError(
                f"classes must be distinct and at least one, not {list(wanted)[:20]}; "
                f"known: {list(self.names[:20])}{' ...' if len(self.names) > 20 else ''}"
            )
        return labels

    def check_same(self, found: ClassList, owner: str) -> None:
        """Check that the classes of an artifact are these, in this order; it may name them by WordNet IDs.

        Args:
            found: The classes of the artifact.
            owner: Which artifact, for the message.

        Raises:
            ArtifactFormatError: It has others, or another order; the message names the first difference.
        """
        if len(found.names) != len(self.names):
            raise ArtifactFormatError(
                f"{owner} has {len(found.names)} classes, this data set {len(self.names)}; "
                "open it with D3HRDataset, or give the artifact of this data set"
            )
        for label, (name, other) in enumerate(zip(self.names, found.names, strict=True)):
            wnid = None if self.wnids is None else self.wnids[label]
            other_wnid = None if found.wnids is None else found.wnids[label]
            if other not in (name, wnid) or (wnid and other_wnid and wnid != other_wnid):
                raise ArtifactFormatError(
                    f"class label {label} of {owner} is {_shown(other, other_wnid)}, of "
                    f"this data set {_shown(name, wnid)}; the order must be the same, or labels mean other "
                    "classes: build the artifact again in this order, or open it with D3HRDataset"
                )

    def check_label_map(self, label_map: Mapping[str, Any], owner: str) -> None:
        """Check that a model's label map, class label -> name or names, does not tell another order.

        Names are compared without regard to case and "_". A name that no class here has says nothing, nor
        does one that the map gives to several labels (both cranes of ImageNet): only a label whose name is
        that of another class is an error.

        Args:
            label_map: As `id2label` in the config of a model: {"0": "tench, Tinca tinca", ...}.
            owner: Whose map it is, for the message.

        Raises:
            ModelFormatError: A label has the name of another class.
        """
        times = Counter(name for value in label_map.values() for name in _synonyms(str(value)))
        for key, value in label_map.items():
            names = [name for name in _synonyms(str(value)) if times[name] == 1]
            meant = set().union(*(self._meanings.get(name, set()) for name in names))
            if meant and (not str(key).isdecimal() or int(key) not in meant):
                other = min(meant)
                raise ModelFormatError(
                    f"{owner} calls class label {key} {value!r}, here that is class label {other} "
                    f"({self.names[other]!r}); their orders differ, and labels would mean other classes: "
                    "use the model and the class order that belong together"
                )

    @cached_property
    def labels_by_name(self) -> dict[str, int]:
        """Class labels by every way to name a class that names no other: name, synonym, WordNet ID."""
        return {key: min(labels) for key, labels in self._meanings.items() if len(labels) == 1}

    def find(self, name: str) -> int | None:
        """Return the class label of a name, of its synonyms or of a WordNet ID; None if that is not one.

        Names are compared without regard to case and "_", as a whole first, else by the synonyms that are
        known here, which must all mean one class. What could be two classes is none.
        """
        known = self.labels_by_name
        for key in (name, _plain(name)):
            if key in known:
                return known[key]
        meant = {known[key] for key in _synonyms(name) if key in known}
        return meant.pop() if len(meant) == 1 else None

    def find_folder(self, folder: str) -> int | None:
        """Return the class label that the name of a folder means; None if that is not one.

        It is a name as `find` takes it, perhaps with the number and the spelling that exports give it
        ("003-Bee_wasp" for "bee/wasp"), where only one class is spelled so.
        """
        name = without_number(folder)
        for found in (self.find(folder), self.find(name), self._spellings.get(plain_name(name).lower())):
            if found is not None:
                return found
        return None

    @cached_property
    def _spellings(self) -> dict[str, int]:
        spelled = [plain_name(name).lower() for name in self.names]
        times = Counter(spelled)
        return {name: label for label, name in enumerate(spelled) if name and times[name] == 1}

    @cached_property
    def _meanings(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for label, name in enumerate(self.names):
            for key in {_plain(name), *_synonyms(name)}:
                found.setdefault(key, set()).add(label)
        return {**found, **{wnid: {label} for label, wnid in enumerate(self.wnids or ())}}


def packaged_subset(name: str, subset: str) -> list[str]:
    """Return the WordNet IDs of a usual subset of a data set, in the order of its class labels.

    Raises:
        ConfigError: There is no such subset.
    """
    subsets: dict[str, list[str]] = _read(name).get("subsets", {})
    if subset not in subsets:
        raise ConfigError(
            f"{name} has no subset {subset!r}; accepted: {sorted(subsets) or 'none'}, or classes=[...]"
        )
    return subsets[subset]


def _read(name: str) -> dict[str, Any]:
    path = Path(__file__).resolve().parent / f"{name}.json"
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _synonyms(names: str) -> set[str]:
    """Return the names in "tench, Tinca tinca", without regard to case and "_"."""
    return {_plain(name) for name in names.split(",")}


def _plain(name: str) -> str:
    return name.strip().replace("_", " ").lower()


def _shown(name: str, wnid: str | None) -> str:
    return repr(name) if wnid is None or wnid == name else f"{name!r} ({wnid})"
