"""Images with the labels of a source -> the same images with a model's class labels."""

from __future__ import annotations

from functools import partial
from typing import Any

from d3hr_datasets.classes.matching import LabelMap
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.records import Images


def relabel(images: Images, labels: LabelMap) -> Images:
    """Return the images with the model's class labels, without those of classes that are left out.

    Raises:
        ConfigError: A label that is known beforehand, or found when its image is read, is not in the map; or
            classes are to be left out of images whose labels are not known beforehand.
    """
    if None in labels.values() and images.labels is None:
        raise ConfigError(
            "classes can be left out only where labels are known before images are read"
            if images.has_random_access
            else "leaving classes out needs random access; leave out --streaming"
        )
    identity = f"{images.identity} {sorted(labels.items(), key=str)}"
    return images.relabelled(partial(_class_label, labels), identity)


def _class_label(labels: LabelMap, where: str, label: Any) -> int | None:
    """Return the model's class label of an image, None where its class is left out."""
    try:
        return labels[label if isinstance(label, str) else int(label)]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{where} has label {label!r}, which is no class that is known; known: {list(labels)[:10]}. Give "
            "--class-map, or --class-order same where labels are the model's already"
        ) from error
