"""Images to build from: any data set -> records that are read when their turn comes, and pixels of a size.

In: a torchvision-like data set with random access, or a stream of shards. Out: uint8 pixels and class
labels, or an error that names the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from PIL import Image

from d3hr_datasets.io.foreign import open_file

# The formats that images of data sets have. Pillow has others, some of which run programs (EPS: Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF", "AVIF", "JPEG2000")
MAX_IMAGE_BYTES = 2**30


class ImageSource(Protocol):
    """What is built from: torchvision data sets are like this.

    Where it has `targets`, a class label for each image, these are checked before anything is read. Where
    it has `samples`, (path, ...) for each image, as `ImageFolder`, errors name the path and chunks notice
    files of another size or time of change. Where it has `identity`, a string, chunks of another one are
    not taken.
    """

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return (PIL image, class label)."""


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
class ImageStream(Protocol):
    """What is built from where there is no random access: shards, each in a fixed order.

    Where it has `identity`, a string, chunks of another one are not taken.
    """

    @property
    def num_shards(self) -> int:
        """Number of shards."""

    @property
    def num_images(self) -> int | None:
        """Number of images; None where nobody knows it."""

    def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
        """Yield the images of a shard from number `start` on."""


class IndexedImages:
    """A data set with random access as a stream of one shard."""

    num_shards = 1

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self.num_images = len(source)
        self._samples = getattr(source, "samples", None)
        self._root = getattr(source, "root", None)

    def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
        """Yield the images from number `start` on."""
        for index in range(start, self.num_images):
            where, name = f"image {index}", str(index)
            if self._samples is not None:
                where, name = f"image {index} ({self._samples[index][0]})", self._name(index)
            yield ImageRecord(where, name, partial(self.source.__getitem__, index))

    def identity(self, indices: Iterable[int]) -> str:
        """Return what tells these images from others without reading them: names, sizes, times of change."""
        if self._samples is None:
            return ""  # all that is known of them is in the key of the whole build
        digest = hashlib.sha256()
        for index in indices:
            state = file_state(Path(self._samples[index][0]))
            digest.update(f"{self._name(index)}\0{state}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _name(self, index: int) -> str:
        path = Path(self._samples[index][0])  # type: ignore[index]
        if self._root is not None and path.is_relative_to(self._root):
            path = path.relative_to(self._root)
        return path.as_posix()


def open_image(source: Path | IO[bytes]) -> Image.Image:
    """Read an image in its own mode: torchvision's loader clips 16 bits per channel to 8.

    Args:
        source: A file, or one that is open.

    Raises:
        ForeignFileError: It is no regular file.
        OSError: It is none of `FORMATS`, or damaged; likewise all that Pillow raises.
    """
    if isinstance(source, Path):
        with open_file(source, MAX_IMAGE_BYTES) as file:
            return open_image(file)
    Image.init()
    image = Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])
    image.load()
    return image


def file_state(path: Path) -> str:
    """Return size and time of change of a file, which tell whether it has been replaced."""
    try:
        status = path.stat()
    except OSError:
        return "missing"  # reading it will say so
    return f"{status.st_size} {status.st_mtime_ns}"
