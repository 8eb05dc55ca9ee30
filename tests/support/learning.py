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
from d3hr_datasets.sampling.mode_sampling import mode_shares
from d3hr_datasets.students.views import dsa_augment
from tests.support.tiny import IMAGE_SIZE, tiny_model

SETTINGS = LearningSettings(ipc=(1, 3), iterations=12, learning_rate=0.1, num_images=6, real_batch=4, width=4)


def learn(artifact: Artifact, output: Path, images: Path, **changes: Any) -> Artifact:
    """Learn means of an artifact on the CPU, with other settings or a `batch_size` or `notify`."""
    options = {name: changes.pop(name) for name in ("batch_size", "notify") if name in changes}
    settings = dataclasses.replace(SETTINGS, **changes)
    return learn_artifact(artifact, output, images, settings, device="cpu", progress=False, **options)


def matcher_of(artifact: Artifact, ipc: tuple[int, ...] = (1, 2, 3), batch_size: int = 50) -> Matcher:
    """Return what compares groups of an artifact with images of noise around a brightness."""
    generator = torch.Generator().manual_seed(0)
    shape = (6, 1, IMAGE_SIZE, IMAGE_SIZE)
    real = [(torch.rand(shape, generator=generator) * 80 + 60 * label).to(torch.uint8) for label in range(3)]
    generation = generation_of(artifact.info, ipc)
    modes = {decode.timestep: artifact.modes(decode.timestep) for _, decode in generation.values()}
    return Matcher(tiny_model(), artifact.info.padding, modes, generation, real, 4, 4, batch_size)


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
    matcher = matcher_of(separate)
    draw = matcher.draw(3)
    shifts = {400: torch.zeros(3, 2, 3, 4, 4, dtype=torch.float32, device="cpu", requires_grad=True)}
    loss = matcher.loss(shifts, 1, 3, draw)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        augmented = dsa_augment(matcher.real[0] / 255, shared=True)
    return [
        found.modes(400).mean,
        found.info.to_dict(),
        loss.detach(),
        matcher.moved(400, 0, shifts[400][0].detach()),
        mode_shares(separate.modes(400, 0), 1),
        augmented,
        D3HRDataset(found, work / "cache", 2, device="cpu").sample_latents(1),
    ]
