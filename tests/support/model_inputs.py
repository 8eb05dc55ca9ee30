"""What the tiny model takes, the same in every test."""

from __future__ import annotations

import torch

from d3hr_datasets import DecodeConfig

DECODE = DecodeConfig(timestep=400, num_inference_steps=10, guidance_scale=2.0)


def random_latents(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(count))


def random_images(count: int = 2, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(count)) * 2 - 1


def labels_in_turn(count: int) -> torch.Tensor:
    return torch.arange(count) % 3
