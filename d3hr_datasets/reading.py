"""Images to build from: any data set -> records that are read when their turn comes, and pixels of a size.

In: a torchvision-like data set with random access, or a stream of shards. Out: uint8 pixels and class
labels, or an error that names the image.
"""

from __future__ import annotations

import hashlib
import operator
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from d3hr_datasets.ambient import neutral
from d3hr_datasets.artifact_info import ArtifactInfo
from d3hr_datasets.config import Resizing
from d3hr_datasets.errors import ConfigError, D3HRError, ForeignFileError, UnreadableImageError
from d3hr_datasets.safe_files import open_file

# What Pillow, its plug-ins, a file system and a data set raise where an image is damaged.
_DAMAGE = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
MAX_ASPECT_RATIO = 8
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


@neutral()
def resize_and_crop(
    image: Image.Image, image_size: int, image_mode: str, resizing: Resizing = "bicubic"
) -> torch.Tensor:
    """Turn a PIL image into (C, S, S) uint8, S = image_size.

    The shorter side is resized (bicubic, antialiased; or by Pillow's bilinear filter, as torchvision's
    `Resize` does) unless it is that long already, and the centre is cropped.

    Raises:
        ValueError: It has no pixels, or more than eight bits per channel.
    """
    if image.mode == "F" or (image.mode.startswith("I") and not _fits_bytes(image)):
        raise ValueError(f"mode {image.mode} with values beyond 0 to 255; convert it to 8 bits per channel")
    width, height = image.size
    if width < 1 or height < 1:
        raise ValueError(f"it has {width} x {height} pixels")
    longest = MAX_ASPECT_RATIO * min(width, height)
    if max(width, height) > longest:  # what is cropped anyway need not be resized: it could be gigabytes
        left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
        image = image.crop((left, top, left + min(width, longest), top + min(height, longest)))
    converted: Any = image.convert(image_mode)
    if resizing == "bilinear":
        converted = F.resize(converted, [image_size], interpolation=F.InterpolationMode.BILINEAR)
    pixels = F.pil_to_tensor(converted)
    if min(pixels.shape[-2:]) != image_size:
        pixels = F.resize(pixels, [image_size], interpolation=F.InterpolationMode.BICUBIC, antialias=True)
    return F.center_crop(pixels, [image_size, image_size])


def _fits_bytes(image: Image.Image) -> bool:
    low, high = image.getextrema()
    return 0 <= low <= high <= 255  # type: ignore[operator]


@neutral()
def to_model_range(pixels: torch.Tensor, padding: int) -> torch.Tensor:
    """Turn uint8 (..., S, S) into float32 in [-1, 1] with a black frame of `padding` pixels."""
    return F.pad(pixels.float() / 127.5 - 1, [padding] * 4, fill=-1.0)


def read_pixels(
    record: ImageRecord, image_size: int, image_mode: str, resizing: Resizing = "bicubic"
) -> tuple[torch.Tensor, Any]:
    """Read an image.

    Returns:
        (C, S, S) uint8, S = `image_size`, and what the source says is its label.

    Raises:
        UnreadableImageError: It cannot be read; the message says which and why.
        ConfigError: The source gives no PIL image.
    """
    try:
        image, label = record.read()
        is_image = isinstance(image, Image.Image)
        pixels = resize_and_crop(image, image_size, image_mode, resizing) if is_image else None
    except D3HRError as error:
        if not isinstance(error, ForeignFileError):
            raise
        raise _unreadable(record, error) from error
    except _DAMAGE as error:
        raise _unreadable(record, error) from error
    if pixels is None:
        raise ConfigError(
            f"{record.where} is a {type(image).__name__}; accepted: PIL images (leave out `transform`)"
        )
    return pixels, label


def _unreadable(record: ImageRecord, error: Exception) -> UnreadableImageError:
    return UnreadableImageError(
        f"{record.where} cannot be read: {reason_of(error)}. Mend or remove it and run this again; a "
        "build keeps finished chunks, and leaves images out, on record, with --skip-unreadable N"
    )


def read_record(record: ImageRecord, info: ArtifactInfo) -> tuple[torch.Tensor, int]:
    """Read an image for a model.

    Returns:
        (C, S, S) float32 in [-1, 1] with its frame, and its class label.

    Raises:
        UnreadableImageError: As `read_pixels`.
        ConfigError: Likewise, or it has a label that is no class of `info`.
    """
    pixels, label = read_pixels(record, info.image_size, info.image_mode, info.inversion.resizing)
    try:
        number = operator.index(label)
    except TypeError:
        number = -1
    if not 0 <= number < len(info.classes):
        raise ConfigError(f"{record.where} has class label {label}; accepted: 0 to {len(info.classes) - 1}")
    return to_model_range(pixels, info.padding), number


def reason_of(error: BaseException) -> str:
    """Return what an error says, without what differs between runs (folders, addresses of objects)."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    text = re.sub(r"\s*<[^<>]* (?:at 0x[0-9a-f]+|name=[^<>]*)>", "", str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
