"""Modes of random numbers, and an artifact that stores some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from d3hr_datasets import Artifact, ClassGaussians, ClassModes, InversionConfig
from tests.support.tiny import tiny_info

SHAPE = (2, 3, 3)


def random_modes(count: tuple[int, ...] = (40, 10, 30, 20), spread: float = 5.0) -> ClassModes:
    """Return the modes of one class, of so many images each."""
    generator = torch.Generator().manual_seed(0)
    mean = spread * torch.randn(1, len(count), *SHAPE, generator=generator)
    return ClassModes(mean, torch.rand(1, *SHAPE, generator=generator) + 0.1, torch.tensor([count]))


def save_artifact_of_modes(folder: Path, counts: list[list[int]], **changes: Any) -> Artifact:
    """Save an artifact of three classes with modes of so many images each at 200 and 400, and no model."""
    count, generator = torch.tensor(counts), torch.Generator().manual_seed(0)
    shape = (3, 3, 4, 4)
    info = tiny_info(
        num_modes=len(counts[0]),
        counts=tuple(count.sum(dim=1).tolist()),
        inversion=InversionConfig(timesteps=(200, 400), num_inference_steps=10),
        **changes,
    )
    gaussians, modes = {}, {}
    for timestep in info.inversion.timesteps:
        variance = torch.rand(shape, generator=generator) + 0.1
        mean = 3 * torch.randn(3, len(counts[0]), *shape[1:], generator=generator)
        gaussians[timestep] = ClassGaussians(mean.mean(dim=1), variance, count.sum(dim=1))
        modes[timestep] = ClassModes(mean, variance, count)
    return Artifact.save(folder, info, gaussians, modes)
