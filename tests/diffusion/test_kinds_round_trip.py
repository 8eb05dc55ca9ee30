"""Inversion by fixed points is undone by denoising, for every kind, with networks that matter."""

from __future__ import annotations

import pytest
import torch

from d3hr_datasets import DecodeConfig, InversionConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.support.brief_training import structured_latents, train_briefly
from tests.support.kinds import Kinds
from tests.support.tiny_kinds import PIPELINES, PROMPTS

STEPS, EVALUATIONS = 50, 4
TOLERANCE = 0.02  # of the range of the latents
LABELS = torch.tensor([0, 2, 1])


def invert(model: LatentDiffusion, latents: torch.Tensor, evaluations: int) -> torch.Tensor:
    schedule = model.schedule
    time = schedule.default_time(STEPS)
    config = InversionConfig(
        timesteps=(time,),
        num_inference_steps=STEPS,
        method="fixed_point",
        evaluations_per_step=evaluations,
        grid=schedule.grid_kind,
        shift=schedule.shift,
    )
    return model.invert(latents, LABELS, config)[time]


def denoise(model: LatentDiffusion, inverted: torch.Tensor) -> torch.Tensor:
    schedule = model.schedule
    config = DecodeConfig(
        timestep=schedule.default_time(STEPS),
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        grid=schedule.grid_kind,
    )
    return model.denoise(inverted, LABELS, config)


def network_effect(model: LatentDiffusion, latents: torch.Tensor, inverted: torch.Tensor) -> float:
    """Return how far inverted latents are from clean ones that were merely scaled, in units of these."""
    scaled = latents * model.schedule.level(model.schedule.default_time(STEPS)).signal
    return float((inverted - scaled).std() / scaled.std())


def share_of_range(found: torch.Tensor, latents: torch.Tensor) -> float:
    return float((found - latents).abs().max() / (latents.max() - latents.min()))


@pytest.mark.parametrize("name", PIPELINES)
def test_latents_come_back(name: str, kinds: Kinds) -> None:
    model = kinds.model(name)
    latents = torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(8))
    inverted = invert(model, latents, EVALUATIONS)
    assert network_effect(model, latents, inverted) > 0.5
    assert share_of_range(denoise(model, inverted), latents) < TOLERANCE


@pytest.mark.parametrize("name", ["sd-1", "dit-flow"])
def test_latents_come_back_from_a_trained_model(name: str, kinds: Kinds) -> None:
    """A UNet of noise and a transformer of velocities that have learned what they can in seconds."""
    prompts = None if name == "dit-flow" else PROMPTS
    model = LatentDiffusion.from_pretrained(kinds.folder(name), device="cpu", prompts=prompts)
    losses = train_briefly(model)
    assert sum(losses[-30:]) < 0.75 * sum(losses[:30])
    latents = structured_latents(LABELS, model.latent_shape, seed=10**6)
    inverted = invert(model, latents, EVALUATIONS)
    assert network_effect(model, latents, inverted) > 0.5
    assert share_of_range(denoise(model, inverted), latents) < TOLERANCE
    assert not torch.equal(inverted, invert(kinds.model(name), latents, EVALUATIONS))


@pytest.mark.parametrize("name", ["sd-1", "dit-flow"])
def test_fixed_points_are_what_brings_them_back(name: str, kinds: Kinds) -> None:
    """One evaluation a step, as plain inversion makes them, comes back less well."""
    model = kinds.model(name)
    latents = torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(8))
    errors = [
        share_of_range(denoise(model, invert(model, latents, evaluations)), latents)
        for evaluations in (1, EVALUATIONS)
    ]
    assert errors[1] < errors[0] / 10
