"""Statistics in eight bits: means and standard deviations as integers of a step of their own per channel.

In: float tensors (..., H, W). Out: integers of the same shape and steps, (..., 1, 1) float32; and back. Half
the bytes of float16; what it costs in the images is measured by `recipes.evaluate.storage`.
"""

from __future__ import annotations

import torch


def scale_name(name: str) -> str:
    """Return the name of the tensor of steps that belongs to a tensor."""
    return f"{name}.scale"


def is_variance(name: str) -> bool:
    """Say whether a tensor holds variances, which are stored as standard deviations without a sign."""
    return name.endswith("variance")


def quantize(name: str, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a tensor as int8, or as uint8 of the standard deviation if it holds variances, and its steps."""
    values = values.float()
    values, top, dtype = (values.sqrt(), 255, torch.uint8) if is_variance(name) else (values, 127, torch.int8)
    scale = values.abs().amax(dim=(-2, -1), keepdim=True) / top
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (values / scale).round().clamp(-top, top).to(dtype), scale


def dequantize(name: str, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return what `quantize` was given, in float32, to half a step."""
    found = values.float() * scale
    return found.square() if is_variance(name) else found
