"""Learning means of a tiny artifact in seconds, on real images of its classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.artifact.learned import Learned
from d3hr_datasets.curation import LearningSettings, learn_artifact
from d3hr_datasets.curation.learning_settings import generation_of
from d3hr_datasets.curation.matching import Matcher
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.sampling.mode_sampling import mode_shares
from tests.support.tiny import IMAGE_SIZE

SETTINGS = LearningSettings(ipc=(1, 3), iterations=12, learning_rate=0.1, num_images=6, real_batch=4, width=4)
GENERATOR = torch.Generator().manual_seed(0)
REAL = [
    (80 * torch.rand(6, 1, IMAGE_SIZE, IMAGE_SIZE, generator=GENERATOR) + 60 * label).to(torch.uint8)
    for label in range(3)
]


def learn(artifact: Artifact, output: Path, images: Path, **changes: Any) -> Artifact:
    """Learn means of an artifact on the CPU, with other settings or a `batch_size` or `notify`."""
    options = {name: changes.pop(name) for name in ("batch_size", "notify") if name in changes}
    settings = dataclasses.replace(SETTINGS, **changes)
    return learn_artifact(artifact, output, images, settings, device="cpu", progress=False, **options)


def matcher_of(
    artifact: Artifact, model: LatentDiffusion, ipc: tuple[int, ...] = (1, 2, 3), batch_size: int = 50
) -> Matcher:
    """Return what compares groups of an artifact with images of noise around a brightness."""
    generation = generation_of(artifact.info, ipc)
    modes = {decode.timestep: artifact.modes(decode.timestep) for _, decode in generation.values()}
    return Matcher(model, artifact.info.padding, modes, generation, REAL, 4, 4, batch_size)


def learned(**changes: Any) -> Learned:
    """Return what is said of means that nobody learned."""
    values: dict[str, Any] = {
        "method": "distribution_matching",
        "network": "ConvNet-3 of width 4",
        "iterations": 1200,
        "ipc": (1, 10),
        "timesteps": (400,),
        "num_images": 6,
        "max_shift": 0.5,
        "shift": 0.25,
        "loss_before": 3.5,
        "loss_after": 2.5,
        "original": "0123456789abcdef",
    }
    return Learned(**{**values, **changes})


def learning(folder: Path, work: Path) -> Any:
    """Learn means and sample by them: a computation."""
    separate = Artifact.load(folder / "separate")
    found = learn(separate, work / "learned", folder / "photos", iterations=2, batch_size=2)
    matcher = matcher_of(separate, LatentDiffusion.from_pretrained(folder / "model", device="cpu"))
    draw = matcher.draw(3)
    shifts: dict[float, torch.Tensor] = {
        400: torch.zeros(3, 2, 3, 4, 4, dtype=torch.float32, device="cpu", requires_grad=True)
    }
    loss = matcher.loss(shifts, 1, 3, draw)
    return [
        found.modes(400).mean,
        found.info.to_dict(),
        loss.detach(),
        matcher.moved(400, 0, shifts[400][0].detach()),
        mode_shares(separate.modes(400, 0), 1),
        D3HRDataset(found, work / "cache", 2, device="cpu").sample_latents(1),
    ]
