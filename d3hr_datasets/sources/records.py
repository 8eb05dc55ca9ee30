"""Labelled images that nobody has read yet: what every kind of source becomes.

In: how an image, or a shard of images, is read. Out: records, each read when its turn comes, and what is
known before: how many images there are, their labels, and what tells them from others.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from d3hr_datasets.sources.image_files import file_state

# What error messages call an image, and its label -> another label; None leaves the image out.
LabelOf = Callable[[str, Any], int | None]


@dataclass(frozen=True)
class ImageRecord:
    """An image that has not been read.

    Args:
        where: What error messages call it.
        name: What `d3hr.json` calls it: no folder of this machine.
        read: Returns (PIL image, class label).
    """

    where: str
    name: str
    read: Callable[[], tuple[Any, Any]]


@runtime_checkable
class Images(Protocol):
    """Labelled images in shards, each in a fixed order, with random access or as a stream."""

    @property
    def num_shards(self) -> int:
        """Number of shards: one where there is random access."""

    @property
    def num_images(self) -> int | None:
        """Number of images; None of a stream where nobody knows it."""

    @property
    def has_random_access(self) -> bool:
        """Whether `records` begins anywhere without reading what comes before."""

    @property
    def labels(self) -> Sequence[int] | None:
        """The label of each image, where they are known before any is read."""

    @property
    def identity(self) -> str:
        """What tells all of them from other images, as far as the source knows: chunks are named by it."""

    def records(self, shard: int, start: int, /) -> Iterator[ImageRecord]:
        """Yield the images of a shard from number `start` on."""

    def identity_of(self, numbers: Iterable[int], /) -> str:
        """Return what tells some images from others without reading them: chunks of others are not taken."""

    def relabelled(self, label_of: LabelOf, identity: str) -> Images:
        """Return the images with other labels, and without those that are left out."""


@dataclass(frozen=True)
class IndexedImages:
    """Images with random access.

    Args:
        num_images: How many there are.
        read: Takes the number of an image and returns (PIL image, label).
        labels: The label of each, where they are known.
        files: The file of each, where each is one: errors name it, and one of another size or time of change
            is noticed.
        root: What the names of files are said from.
        identity: As of `Images`.
    """

    num_images: int
    read: Callable[[int], tuple[Any, Any]]
    labels: Sequence[int] | None = None
    files: Sequence[str | Path] | None = None
    root: str | Path | None = None
    identity: str = ""
    num_shards: int = dataclasses.field(default=1, init=False)
    has_random_access: bool = dataclasses.field(default=True, init=False)

    def records(self, shard: int, start: int, /) -> Iterator[ImageRecord]:
        """Yield the images from number `start` on."""
        for number in range(start, self.num_images):
            where, name = f"image {number}", str(number)
            if self.files is not None:
                file = self.files[number]
                where, name = f"image {number} ({file})", self._name(file)
            yield ImageRecord(where, name, partial(self.read, number))

    def identity_of(self, numbers: Iterable[int], /) -> str:
        """Return the digest of names, sizes and times of change of files; "" where there are none."""
        if self.files is None:
            return ""  # all that is known of them is in the key of the whole build
        digest = hashlib.sha256()
        for number in numbers:
            file = self.files[number]
            line = f"{self._name(file)}\0{file_state(Path(file))}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def relabelled(self, label_of: LabelOf, identity: str) -> IndexedImages:
        """Return the images with other labels; where labels are not known, none can be left out."""
        kept: Sequence[int] = range(self.num_images)
        labels: list[int] | None = None
        if self.labels is not None:
            found = [label_of(f"image {number}", label) for number, label in enumerate(self.labels)]
            kept = [number for number, label in enumerate(found) if label is not None]
            labels = [label for label in found if label is not None]
        files = None if self.files is None else [self.files[number] for number in kept]
        read = partial(_read_numbered, self.read, kept, label_of)
        return IndexedImages(len(kept), read, labels, files, self.root, identity)

    def _name(self, file: str | Path) -> str:
        path = Path(file)
        if self.root is not None and path.is_relative_to(self.root):
            path = path.relative_to(self.root)
        return path.as_posix()


@dataclass(frozen=True)
class StreamedImages:
    """Images of shards that are read from their beginning on.

    Args:
        num_shards: How many shards there are.
        num_images: How many images there are in all; None where nobody knows it.
        records: Takes the number of a shard and that of its first image, and yields the images from it on.
        identity: As of `Images`.
    """

    num_shards: int
    num_images: int | None
    records: Callable[[int, int], Iterator[ImageRecord]]
    identity: str = ""
    labels: None = dataclasses.field(default=None, init=False)
    has_random_access: bool = dataclasses.field(default=False, init=False)

    def identity_of(self, numbers: Iterable[int], /) -> str:
        """Return "": nothing is known of some images but what is known of all."""
        return ""

    def relabelled(self, label_of: LabelOf, identity: str) -> StreamedImages:
        """Return the stream with other labels; none can be left out."""
        records = partial(_relabelled_records, self.records, label_of)
        return StreamedImages(self.num_shards, self.num_images, records, identity)


# Functions, not closures, so that images go to the workers of a DataLoader.
def _read_numbered(
    read: Callable[[int], tuple[Any, Any]], kept: Sequence[int], label_of: LabelOf, number: int
) -> tuple[Any, Any]:
    image, label = read(kept[number])
    return image, label_of(f"image {kept[number]}", label)


def _relabelled_records(
    records: Callable[[int, int], Iterator[ImageRecord]], label_of: LabelOf, shard: int, start: int
) -> Iterator[ImageRecord]:
    for record in records(shard, start):
        yield dataclasses.replace(record, read=partial(_read_record, record, label_of))


def _read_record(record: ImageRecord, label_of: LabelOf) -> tuple[Any, Any]:
    image, label = record.read()
    return image, label_of(record.where, label)
