"""Class Gaussians of random numbers, and the loss of a group in numpy."""

from __future__ import annotations

import numpy as np
import scipy.stats
import torch

from d3hr_datasets import ClassGaussians, GroupSamplingConfig
from tests.support.tiny import TIMESTEPS

SHAPE = (3, 6, 5)
STATISTICS_SHAPE = (3, 3, 4, 4)  # of the tiny artifact


def random_gaussian(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.rand(shape, generator=generator) + 0.1


def paper_loss(
    group: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, config: GroupSamplingConfig
) -> float:
    """Return the loss of the paper in numpy, one group at a time."""
    samples, mu, sigma = group.double().numpy(), mean.double().numpy(), variance.double().sqrt().numpy()
    terms = [
        config.mean_weight * np.linalg.norm((samples.mean(axis=0) - mu).ravel()),
        config.std_weight * np.linalg.norm((samples.std(axis=0, ddof=1) - sigma).ravel()),
        config.skewness_weight * np.linalg.norm(scipy.stats.skew(samples, axis=0).ravel()),
    ]
    return float(sum(terms))


def tiny_gaussians(seed: int = 0, scale: float = 1.0) -> dict[int, ClassGaussians]:
    """Return statistics for the tiny artifact."""
    generator = torch.Generator().manual_seed(seed)
    return {
        timestep: ClassGaussians(
            torch.randn(STATISTICS_SHAPE, generator=generator) * scale,
            torch.rand(STATISTICS_SHAPE, generator=generator) + 0.1,
            torch.full((3,), 4),
        )
        for timestep in TIMESTEPS
    }
