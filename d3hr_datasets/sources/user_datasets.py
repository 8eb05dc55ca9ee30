"""The door for data sets of others: torchvision's, or anyone's own -> `Images`.

In: an object that this library has not made. Out: `Images`. Attributes of such objects are read here and
nowhere else, and none is ever written:

- `targets`: a label for each image. They are checked before anything is read, and chunks are named by them.
  Of torchvision's own data sets `labels` and `_labels` are the same by other names.
- `samples` and `root`: (path, ...) for each image, as `ImageFolder` has them. Errors name the path, without
  the root in what is published, and files of another size or time of change are noticed.
- `identity`: a string; chunks of another one are not taken.
- `classes` and `wnids`: names in the order of the labels. ImageNet's `classes` are tuples of names, which two
  cranes share; its WordNet IDs tell all apart.
- `data`: pixels in memory, as of CIFAR10.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.records import ImageRecord, Images, IndexedImages, StreamedImages

LABELS = ("targets", "labels", "_labels")


class TorchvisionLike(Protocol):
    """A data set as torchvision's are; what else it may have is said above."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """Return (PIL image, class label)."""


@runtime_checkable
class ImageStream(Protocol):
    """Shards of images without random access, each in a fixed order; it may have an `identity`, too."""

    @property
    def num_shards(self) -> int:
        """Number of shards."""

    @property
    def num_images(self) -> int | None:
        """Number of images; None where nobody knows it."""

    def records(self, shard: int, start: int, /) -> Iterator[ImageRecord]:
        """Yield the images of a shard from number `start` on."""


def as_images(source: TorchvisionLike | ImageStream, labels: Sequence[str] = ("targets",)) -> Images:
    """Return the images of any data set.

    Args:
        source: `Images`, which are returned as they are; a data set of (PIL image, label); or a stream.
        labels: Attributes that may have the labels. A build asks for `targets` alone: chunks are named by
            what is found.

    Raises:
        ConfigError: It is nothing of that.
    """
    if isinstance(source, Images):
        return source
    if isinstance(source, ImageStream):
        identity = getattr(source, "identity", "")
        return StreamedImages(source.num_shards, source.num_images, source.records, identity)
    return indexed_images(source, labels)


def indexed_images(dataset: TorchvisionLike, labels: Sequence[str]) -> IndexedImages:
    """Return the images of a data set with random access; arguments and errors as of `as_images`."""
    lacking = [name for name in ("targets", "__len__", "__getitem__") if not hasattr(dataset, name)]
    if lacking not in ([], ["targets"]):
        raise ConfigError(
            f"{type(dataset).__name__} has no {', '.join(f'`{name}`' for name in lacking)}; accepted: a data "
            "set of (PIL image, label) as torchvision's are, of which only `targets` may be missing"
        )
    samples = getattr(dataset, "samples", None)
    return IndexedImages(
        num_images=len(dataset),
        read=dataset.__getitem__,
        labels=_known_labels(dataset, labels),
        files=None if samples is None else [sample[0] for sample in samples],
        root=getattr(dataset, "root", None),
        identity=getattr(dataset, "identity", ""),
    )


def class_names(dataset: object) -> tuple[str, ...] | None:
    """Return the names of the classes of a data set in the order of its labels; None where it has none."""
    for names in (getattr(dataset, "wnids", None), getattr(dataset, "classes", None)):
        if isinstance(names, Sequence | np.ndarray) and len(names) > 0:
            return tuple(map(str, names)) if all(isinstance(name, str) for name in names) else None
    return None


def identity_of_pixels(dataset: object) -> str:
    """Return the SHA-256 of the pixels of a data set that has them in memory; "" of any other."""
    pixels = getattr(dataset, "data", None)
    if not isinstance(pixels, torch.Tensor | np.ndarray):
        return ""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def _known_labels(dataset: TorchvisionLike, attributes: Sequence[str]) -> list[int] | None:
    for attribute in attributes:
        labels = getattr(dataset, attribute, None)
        if labels is not None and len(labels) == len(dataset):
            return [int(label) for label in labels]
    return None
