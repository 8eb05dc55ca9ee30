"""What a VAE makes <-> latents as the network takes them: shifted, and scaled to a spread near 1."""

from __future__ import annotations

from typing import Any

import torch

from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def scale_latents(latents: torch.Tensor, vae_config: Any) -> torch.Tensor:
    """Return (B, C, H, W) as the network takes them; `unscale_latents` undoes it."""
    return (latents - float(vae_config.get("shift_factor") or 0.0)) * float(vae_config.scaling_factor)


@neutral(grad=None)
def unscale_latents(latents: torch.Tensor, vae_config: Any) -> torch.Tensor:
    """Return (B, C, H, W) as the VAE takes them."""
    return latents / float(vae_config.scaling_factor) + float(vae_config.get("shift_factor") or 0.0)
