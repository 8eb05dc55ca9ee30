"""Bounds on what an image can change: inverted latents -> latents whose sums and squares are bounded."""

from __future__ import annotations

import torch

from d3hr_datasets.artifact.privacy import Privacy
from d3hr_datasets.numerics.sums import squared_norm
from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def clip_latents(latents: torch.Tensor, privacy: Privacy) -> torch.Tensor:
    """Scale down each latent that is out of bounds.

    The factor is that of the image alone: the largest a <= 1 with ||a y|| <= clip_norm and
    ||(a y)^2 - spread|| <= clip_squares. The square of the latter is a parabola in a^2, of which a^2 = 0 is
    within bounds, so the largest a^2 is its greater root.

    Args:
        latents: (B, C, H, W), any float type and device.
        privacy: The bounds.

    Returns:
        (B, C, H, W) float64 on the CPU. What is not finite stays so, or becomes NaN.
    """
    latents = latents.detach().cpu().double()  # in two steps: MPS has no float64
    spread, num_elements = privacy.spread, latents[0].numel() if len(latents) else 0
    second, fourth = squared_norm(latents, 3), squared_norm(latents.square(), 3).clamp(min=1e-300)
    room = privacy.clip_squares**2 - num_elements * spread**2
    half = spread * second
    root = (half + (half.square() + fourth * room).clamp(min=0).sqrt()) / fourth
    factor = (privacy.clip_norm / second.sqrt().clamp(min=1e-150)).minimum(root.sqrt()).clamp(max=1.0)
    return latents * factor.view(-1, 1, 1, 1)
