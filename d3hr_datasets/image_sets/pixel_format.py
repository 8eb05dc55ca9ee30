"""How pixels of any set become what a student takes: uint8 of one or three channels. The only place for it.

In: a PIL image, or a tensor. Out: uint8 (C, H, W), or an error that names the image. What is not lossless is
refused, not approximated:

- Grey to three channels: the grey level is repeated in each.
- Colour to one channel: only where the three channels of every pixel are equal. Other colours are refused.
- Black and white (1 bit): 0 and 255.
- A palette: the colours that it stands for.
- CMYK, YCbCr and other colour spaces: to RGB by Pillow, as the other readers of this library do.
- Transparency: dropped where every pixel is opaque, else refused.
- 16 or 32 bits per channel: taken as they are where all values are 0 to 255, else refused.
- Tensors of uint8: as they are. Other integers are refused.
- Float tensors in [0, 1]: times 255, rounded to the nearest integer.
- Other float tensors: refused, unless mean and std say how they were normalised. Then image * std + mean is
  clamped to [0, 1] and rounded likewise. Where that moves more than 1 % of the values by more than half a
  grey level, mean and std are not those of the images, and they are refused.

The size is left as it is: a protocol resizes images itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets.errors import SourceError, UnreadableImageError

Channels = Literal[1, 3]
MAX_CLAMPED = 0.01  # of the values of normalised images
_ROUNDING = 1e-6  # of floats; values so close to [0, 1] are in it
_GREY = ("1", "L", "LA")

Normalization = tuple[Sequence[float], Sequence[float]]  # mean and std of each channel, of images in [0, 1]


def pil_to_pixels(image: Image.Image, channels: int, where: str) -> torch.Tensor:
    """Return a PIL image as uint8 (channels, H, W).

    Args:
        image: Of any mode.
        channels: 1 or 3.
        where: What errors call the image.

    Raises:
        UnreadableImageError: It cannot become such an image without a loss.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = (values.min(), values.max()) if values.size else (0, 0)
        if image.mode == "F" or low < 0 or high > 255:
            raise UnreadableImageError(
                f"{where} has more than 8 bits per channel (mode {image.mode}, values {low} to {high}); "
                "convert it to 8 bits per channel"
            )
        return to_channels(torch.from_numpy(values.astype(np.uint8))[None], channels, where)
    is_grey = image.mode in _GREY
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("LA" if is_grey else "RGBA")
        lowest = int(np.asarray(image)[..., -1].min(initial=255))
        if lowest < 255:
            raise UnreadableImageError(
                f"{where} is transparent in places (alpha {lowest} of 255), and nothing says what is behind; "
                "save it without an alpha channel"
            )
    return to_channels(pil_to_tensor(image.convert("L" if is_grey else "RGB")), channels, where)


def to_channels(pixels: torch.Tensor, channels: int, where: str) -> torch.Tensor:
    """Return pixels (C, H, W), C = 1 or 3, with the channels that a student takes.

    Raises:
        UnreadableImageError: They are empty, have other channels, or are coloured and one channel is asked.
    """
    if pixels.shape[0] not in (1, 3) or pixels.numel() == 0:
        raise UnreadableImageError(
            f"{where} has the shape {tuple(pixels.shape)}; accepted: (1, H, W) or (3, H, W)"
        )
    if pixels.shape[0] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(3, -1, -1)
    if not (torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[0], pixels[2])):
        raise UnreadableImageError(
            f"{where} is coloured, and the student takes images of one channel; convert the images to grey, "
            "or take a protocol of three channels"
        )
    return pixels[:1]


def tensor_to_uint8(
    images: torch.Tensor, where: str, normalization: Normalization | None = None
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return images (N, C, H, W) as uint8, and what a user should know about it.

    Args:
        images: uint8, or floats.
        where: What errors call them.
        normalization: Mean and std that float images were normalised with; None where they were not.

    Raises:
        SourceError: They cannot become such images, by the rules above.
    """
    if images.dtype == torch.uint8:
        if normalization is not None:
            raise SourceError(f"{where} has uint8 images, which are not normalised; leave `normalized` out")
        return images, ()
    if not images.is_floating_point():
        raise SourceError(
            f"{where} has images of {images.dtype}; accepted: uint8 in 0 to 255, or floats in [0, 1]"
        )
    images = images.float()
    bad = (~images.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise SourceError(
            f"{where}: image {bad[0]} has values that are NaN or infinite ({len(bad)} images have); remove "
            "these images, or make them again"
        )
    notes: list[str] = []
    if normalization is not None:
        images, clamped = _unnormalize(images, where, normalization)
        notes.append(f"normalised images were given back; {clamped:,} of {images.numel():,} values clamped")
    low, high = float(images.min()), float(images.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise SourceError(
            f"{where} has float images in [{low:.4g}, {high:.4g}]; accepted: [0, 1]. Images in 0 to 255 must "
            "be uint8; normalised images need the mean and std they were normalised with (`normalized`)"
        )
    notes.append("float images were rounded to 8 bits")
    return (images.clamp(0, 1) * 255).round().to(torch.uint8), tuple(notes)


def _unnormalize(images: torch.Tensor, where: str, normalization: Normalization) -> tuple[torch.Tensor, int]:
    """Return images in [0, 1], and how many values were outside by more than half a grey level."""
    mean, std = (torch.tensor(list(values), dtype=torch.float32) for values in normalization)
    if len(mean) != images.shape[1] or len(std) != images.shape[1]:
        raise SourceError(
            f"{where} has images of {images.shape[1]} channels, mean and std have {len(mean)} and "
            f"{len(std)} values; give one for each channel of the images"
        )
    images = images * std[:, None, None] + mean[:, None, None]
    clamped = int(((images < -0.5 / 255) | (images > 1 + 0.5 / 255)).sum())
    if clamped > MAX_CLAMPED * images.numel():
        raise SourceError(
            f"{where}: with mean {mean.tolist()} and std {std.tolist()}, {clamped / images.numel():.1%} of "
            f"the values are outside of [0, 1]; accepted: at most {MAX_CLAMPED:.0%}. Give the mean and std "
            "that the images were normalised with"
        )
    return images.clamp(0, 1), clamped
