"""Pixels <-> what a model takes and makes: floats in [-1, 1], with a black frame."""

from __future__ import annotations

import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from d3hr_datasets.errors import ModelFormatError
from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def to_model_range(pixels: torch.Tensor, padding: int) -> torch.Tensor:
    """Turn uint8 (..., S, S) into float32 in [-1, 1] with a black frame of `padding` pixels."""
    return F.pad(pixels.float() / 127.5 - 1, [padding] * 4, fill=-1.0)


@neutral()
def to_pil(images: torch.Tensor, padding: int = 0) -> list[Image.Image]:
    """Turn float images (B, 1 or 3, H, W) in [-1, 1] into PIL images "L" or "RGB", without the frame.

    Raises:
        ModelFormatError: A pixel is not finite, as when half precision overflows.
    """
    if not images.isfinite().all():
        raise ModelFormatError("the model made pixels that are not finite; use torch_dtype=torch.float32")
    side = images.shape[-1] - padding
    pixels = ((images[..., padding:side, padding:side].float().cpu() + 1) * 127.5).round().clamp(0, 255)
    arrays = pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in arrays]
