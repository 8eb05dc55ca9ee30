"""Images of a source, each read once before a student is trained: a bad one is found now, not in an epoch.

In: `sources.records.Images` with the labels of the real data set. Out: uint8 images with the channels that a
student takes. A small set stays in memory; of a large one each image is read again when its turn comes.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from d3hr_datasets.errors import D3HRError, ForeignFileError, SourceError, UnreadableImageError
from d3hr_datasets.image_sets.pixel_format import pil_to_pixels
from d3hr_datasets.sources.records import ImageRecord, Images
from d3hr_datasets.sources.resizing import reason_of

MAX_IN_MEMORY = 20_000  # images
MAX_BYTES_IN_MEMORY = 2**30

Sizes = Counter[tuple[int, int]]  # (height, width) -> how many images


class CheckedImages(Dataset[tuple[torch.Tensor, int]]):
    """Images of a source as uint8 (C, H, W), which may differ in size.

    Args:
        images: With random access.
        channels: 1 or 3.

    Raises:
        UnreadableImageError: An image cannot be read, or not without a loss; the message names it.
        SourceError: There are none, or a label is no integer.
    """

    def __init__(self, images: Images, channels: int) -> None:
        self._images, self._channels = images, channels
        self._pixels: list[torch.Tensor] | None = []
        self.sizes: Sizes = Counter()
        self.targets: list[int] = []
        num_bytes = 0
        for record in images.records(0, 0):
            pixels, label = _read(record, channels)
            self.sizes[(pixels.shape[1], pixels.shape[2])] += 1
            self.targets.append(label)
            num_bytes += pixels.numel()
            if len(self.targets) > MAX_IN_MEMORY or num_bytes > MAX_BYTES_IN_MEMORY:
                self._pixels = None
            if self._pixels is not None:
                self._pixels.append(pixels)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self._pixels is not None:
            return self._pixels[index], self.targets[index]
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        return _read(next(self._images.records(0, index)), self._channels)

    def stacked(self) -> torch.Tensor | None:
        """Return images as a tensor (N, C, H, W); None where they are not in memory, or of many sizes."""
        return torch.stack(self._pixels) if self._pixels and len(self.sizes) == 1 else None


def _read(record: ImageRecord, channels: int) -> tuple[torch.Tensor, int]:
    try:
        image: Any
        image, label = record.read()
    except D3HRError as error:
        if not isinstance(error, ForeignFileError):
            raise
        raise _unreadable(record, error) from error
    except Exception as error:  # whatever Pillow, its plug-ins and a data set raise where an image is damaged
        raise _unreadable(record, error) from error
    if not isinstance(image, Image.Image):
        raise SourceError(f"{record.where} is a {type(image).__name__}; accepted: PIL images")
    if not isinstance(label, int):
        raise SourceError(f"{record.where} has label {label!r:.80}; accepted: integers")
    return pil_to_pixels(image, channels, record.where), label


def _unreadable(record: ImageRecord, error: Exception) -> UnreadableImageError:
    return UnreadableImageError(
        f"{record.where} cannot be read: {reason_of(error)}. Mend or remove it and run this again"
    )
