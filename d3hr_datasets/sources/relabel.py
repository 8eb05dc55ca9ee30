"""Images with the labels of a source -> the same images with a model's class labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from d3hr_datasets.classes.matching import LabelMap
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.records import ImageRecord, ImageSource, ImageStream


def relabel(images: ImageSource | ImageStream, labels: LabelMap) -> ImageSource | ImageStream:
    """Return the images with the model's class labels, without those of classes that are left out.

    Raises:
        ConfigError: A label that is known beforehand, or found when its image is read, is not in the map.
    """
    if isinstance(images, ImageStream):
        return _RelabelledStream(images, labels)
    return _RelabelledImages(images, labels)


class _RelabelledImages:
    """Images with random access and other labels; some classes may be left out."""

    def __init__(self, source: ImageSource, labels: LabelMap) -> None:
        self._source = source
        self._labels = labels
        targets = getattr(source, "targets", None)
        self._indices: Sequence[int] = range(len(source))
        if targets is not None:
            found = [_label(f"image {index}", int(target), labels) for index, target in enumerate(targets)]
            self._indices = [index for index, label in enumerate(found) if label is not None]
            self.targets = [label for label in found if label is not None]
        elif None in labels.values():
            raise ConfigError("classes can be left out only where labels are known before images are read")
        samples = getattr(source, "samples", None)
        if samples is not None:
            self.samples = [samples[index] for index in self._indices]
            self.root = getattr(source, "root", None)
        self.identity = _identity(source, labels)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self._source[self._indices[index]]
        return image, _label(f"image {self._indices[index]}", label, self._labels)


class _RelabelledStream:
    """A stream with other labels."""

    def __init__(self, stream: ImageStream, labels: LabelMap) -> None:
        if None in labels.values():
            raise ConfigError("leaving classes out needs random access; leave out --streaming")
        self._stream = stream
        self._labels = labels
        self.num_shards = stream.num_shards
        self.num_images = stream.num_images
        self.identity = _identity(stream, labels)

    def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
        """Yield the images of a shard from number `start` on."""
        for record in self._stream.records(shard, start):
            yield dataclasses.replace(record, read=partial(self._read, record))

    def _read(self, record: ImageRecord) -> tuple[Any, Any]:
        image, label = record.read()
        return image, _label(record.where, label, self._labels)


def _identity(images: ImageSource | ImageStream, labels: LabelMap) -> str:
    """Return what tells relabelled images from others."""
    return f"{getattr(images, 'identity', '')} {sorted(labels.items(), key=str)}"


def _label(where: str, label: Any, labels: LabelMap) -> int | None:
    try:
        return labels[label if isinstance(label, str) else int(label)]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{where} has label {label!r}, which is no class that is known; known: {list(labels)[:10]}. Give "
            "--class-map, or --class-order same where labels are the model's already"
        ) from error
