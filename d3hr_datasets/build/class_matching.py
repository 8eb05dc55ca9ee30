"""The classes of a build: those of the source -> those of the artifact, and images with its class labels.

A model that was trained on class labels says which classes there are, and the source's are matched to them.
To a model of prompts, and to an adapter with classes of its own, they are those of the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d3hr_datasets.build.build_settings import ClassOptions
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.matching import LabelMap, match_classes, read_class_list, read_class_map
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.opening import OpenedSource
from d3hr_datasets.sources.records import Images
from d3hr_datasets.sources.relabel import relabel


def match_to_model(
    opened: OpenedSource,
    known: ClassList | None,
    num_classes: int,
    options: ClassOptions,
    is_named: bool,
) -> tuple[ClassList, Images]:
    """Return a model's classes, and the images with its labels.

    Args:
        opened: The source.
        known: Names of the model's classes, where they are known.
        num_classes: How many it has.
        options: How to match.
        is_named: Whether the source was given by its name; labels of a data set in memory that does not name
            its classes are the model's.

    Raises:
        ConfigError: A class has no certain counterpart.
    """
    class_map = _class_map(options)
    same_order = options.same_order or (not is_named and opened.classes is None and class_map is None)
    classes, labels = match_classes(opened.classes, known, num_classes, class_map, same_order=same_order)
    return classes, _relabelled(opened, labels, is_named)


def match_to_source(opened: OpenedSource, options: ClassOptions, is_named: bool) -> tuple[ClassList, Images]:
    """Return the classes of a source, renamed or left out as the options say, and its images.

    Args:
        opened: The source.
        options: A class list renames, or orders, its classes; a class map renames them or leaves some out.
        is_named: As `match_to_model`.

    Raises:
        ConfigError: The source does not name its classes, and there is no list of them; or the options do not
            fit it.
    """
    class_map = _class_map(options)
    if options.class_list is not None:
        classes = read_class_list(options.class_list)
        return match_to_model(opened, classes, len(classes.names), options, is_named)
    if opened.classes is None:
        raise ConfigError(
            "the source does not name its classes, and no model of class labels says which there are; give "
            "--class-list, a JSON list of names in the order of the source's labels, or the name of a data "
            "set"
        )
    if class_map is None:
        names = opened.classes
        return ClassList(names), _relabelled(opened, {label: label for label in range(len(names))}, is_named)
    renamed = [class_map.get(name, class_map.get(str(label))) for label, name in enumerate(opened.classes)]
    kept = [*dict.fromkeys(name for name in renamed if name is not None)]
    if not kept or not all(isinstance(name, str) and name for name in class_map.values() if name is not None):
        raise ConfigError(
            f"the class map says {list(class_map.items())[:5]}; accepted, where the source says which "
            "classes "
            "there are: a name for each class, or null to leave its images out; at least one name"
        )
    numbers = {name: kept.index(value) if value in kept else value for name, value in class_map.items()}
    classes, labels = match_classes(opened.classes, ClassList(tuple(kept)), len(kept), numbers)
    return classes, _relabelled(opened, labels, is_named)


def _class_map(options: ClassOptions) -> Mapping[str, Any] | None:
    class_map = options.class_map
    if isinstance(class_map, str | Path):
        return read_class_map(class_map)
    if class_map is not None:
        return {str(name): label for name, label in class_map.items()}  # as JSON has them
    return None


def _relabelled(opened: OpenedSource, labels: LabelMap, is_named: bool) -> Images:
    """Return images with labels of the artifact; a data set that has them stays as it is, with its chunks."""
    if not is_named and all(label == new for label, new in labels.items()):
        return opened.images
    return relabel(opened.images, labels)
