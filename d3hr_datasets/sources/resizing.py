"""Pixels of real images: a record -> uint8 pixels of a size, or an error that names the image."""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from d3hr_datasets.config.settings import Resizing
from d3hr_datasets.errors import ConfigError, D3HRError, ForeignFileError, UnreadableImageError
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.records import ImageRecord

# What Pillow, its plug-ins, a file system and a data set raise where an image is damaged.
_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
MAX_ASPECT_RATIO = 8


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


def reason_of(error: BaseException) -> str:
    """Return what an error says, without what differs between runs (folders, addresses of objects)."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    text = re.sub(r"\s*<[^<>]* (?:at 0x[0-9a-f]+|name=[^<>]*)>", "", str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
