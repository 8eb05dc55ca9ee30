"""Modes of random numbers."""

from __future__ import annotations

import torch

from d3hr_datasets import ClassModes

SHAPE = (2, 3, 3)


def random_modes(count: tuple[int, ...] = (40, 10, 30, 20), spread: float = 5.0) -> ClassModes:
    """Return the modes of one class, of so many images each."""
    generator = torch.Generator().manual_seed(0)
    mean = spread * torch.randn(1, len(count), *SHAPE, generator=generator)
    return ClassModes(mean, torch.rand(1, *SHAPE, generator=generator) + 0.1, torch.tensor([count]))
