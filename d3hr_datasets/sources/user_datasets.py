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

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.records import ImageRecord, Images, IndexedImages, StreamedImages

LABELS = ("targets", "labels", "_labels")
LOOKED_AT = 64  # images whose pixels tell a data set from others


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


def told_apart(images: Images) -> Images:
    """Return images that are known by some of their pixels, where nothing else tells them from others.

    `LOOKED_AT` images are read, at equal distances. Data sets that differ only between these, and have the
    same number of images and labels, need an `identity` of their own, or another folder of chunks.
    """
    if not isinstance(images, IndexedImages) or images.identity:
        return images
    digest = hashlib.sha256()
    for place in range(min(LOOKED_AT, images.num_images)):
        try:
            image, label = images.read(place * images.num_images // min(LOOKED_AT, images.num_images))
            digest.update(f"{image.mode} {image.size} {label!r} ".encode() + image.tobytes())
        except Exception as error:  # whatever a data set raises: the build will say so, or leave it out
            digest.update(type(error).__name__.encode())
    return dataclasses.replace(images, identity=digest.hexdigest())


def class_names(dataset: object) -> tuple[str, ...] | None:
    """Return the names of the classes of a data set in the order of its labels; None where it has none."""
    for names in (getattr(dataset, "wnids", None), getattr(dataset, "classes", None)):
        if isinstance(names, list | tuple | np.ndarray) and len(names) > 0:
            return tuple(map(str, names)) if all(isinstance(name, str) for name in names) else None
    return None


def identity_of_pixels(dataset: object) -> str:
    """Return the SHA-256 of the pixels of a data set that has them in memory; "" of any other."""
    pixels = getattr(dataset, "data", None)
    if not isinstance(pixels, torch.Tensor | np.ndarray):
        return ""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def _known_labels(dataset: TorchvisionLike, attributes: Sequence[str]) -> list[int] | None:
    kind, others = type(dataset).__name__, {}
    for attribute in attributes:
        labels = getattr(dataset, attribute, None)
        if labels is None:
            continue
        try:
            known = list(labels)
        except TypeError as error:
            raise ConfigError(f"`{attribute}` of {kind} is no list of labels") from error
        if len(known) != len(dataset):
            others[attribute] = len(known)
        elif not any(isinstance(label, str) for label in known):
            return [_number(label, f"`{attribute}` of {kind}") for label in known]
    if "targets" in others:
        raise ConfigError(
            f"`targets` of {kind} has {others['targets']} labels for {len(dataset)} images; give each one"
        )
    return None


def _number(label: Any, where: str) -> int:
    try:
        number = int(label)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ConfigError(
            f"{where} has {label!r:.40}, which is no class label; accepted: integers"
        ) from error
    if not -(2**63) <= number < 2**63:
        raise ConfigError(f"{where} has {label!r:.40}; accepted: 0 to the number of classes - 1")
    return number
