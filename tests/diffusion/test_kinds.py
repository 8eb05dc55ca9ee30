"""Every kind of model denoises as diffusers does: its modules in a plain loop, and its own pipelines."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from d3hr_datasets import DecodeConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.support.kinds import Kinds
from tests.support.plain_loops import denoise_plainly, encode, plain_scheduler, plain_sigmas
from tests.support.tiny_kinds import PIPELINES, PROMPTS

STEPS = 10
TOLERANCE = 1e-4  # of the range of the latents
LABELS = [0, 2, 1]
STARTS = {"near the top": 1, "in the middle": 5, "at the last step": STEPS - 1}


def latents_of(model: LatentDiffusion, count: int = 3) -> torch.Tensor:
    return torch.randn(count, *model.latent_shape, generator=torch.Generator().manual_seed(7))


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, as a share of the range of what is expected."""
    assert torch.isfinite(expected).all() and found.shape == expected.shape
    return float((found - expected).abs().max() / (expected.max() - expected.min()))


def denoise(model: LatentDiffusion, latents: torch.Tensor, start: int, guidance_scale: float) -> torch.Tensor:
    """Denoise from the `start`-th time of the grid on, counted from the top."""
    grid = model.schedule.grid_kind
    time = model.schedule.scheduler_times(STEPS)[::-1][start]
    config = DecodeConfig(timestep=time, num_inference_steps=STEPS, guidance_scale=guidance_scale, grid=grid)
    return model.denoise(latents, torch.tensor(LABELS), config)


def conditions(pipeline: Any, name: str, negative: str | None) -> Any:
    if name.startswith("dit"):
        return {"class_labels": torch.tensor(LABELS)}, {"class_labels": torch.full((3,), 3)}
    return encode(pipeline, [PROMPTS[label] for label in LABELS], negative)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("name", PIPELINES)
def test_denoising_is_a_plain_loop(name: str, guidance_scale: float, start: str, kinds: Kinds) -> None:
    model, pipeline = kinds.model(name), kinds.pipeline(name)
    latents = latents_of(model)
    given = conditions(pipeline, name, None)
    expected = denoise_plainly(pipeline, latents, given, STEPS, STARTS[start], guidance_scale)
    found = denoise(model, latents, STARTS[start], guidance_scale)
    assert error(found, expected) < TOLERANCE
    if start == "near the top":  # prompts have to be worth a look; one small step hardly shows them
        turned = {key: _turned(value) for key, value in given[0].items()}
        other = denoise_plainly(pipeline, latents, (turned, given[1]), STEPS, STARTS[start], guidance_scale)
        assert error(other, expected) > 10 * TOLERANCE


def _turned(value: Any) -> Any:
    """Give each latent the condition of its neighbour."""
    if isinstance(value, dict):
        return {key: _turned(item) for key, item in value.items()}
    if not isinstance(value, torch.Tensor) or len(value) != len(LABELS):
        return value
    return value.roll(1, 0)


def _call(pipeline: Any, name: str, latents: torch.Tensor, **options: Any) -> torch.Tensor:
    """Have a pipeline make latents of prompts, with DDIM or Euler's method as its scheduler."""
    scheduler, before = plain_scheduler(pipeline), pipeline.scheduler
    if name.startswith(("pixart", "sana")):
        options |= {"use_resolution_binning": False, "clean_caption": False}
    if name.startswith("flux"):
        side = latents.shape[2] * pipeline.vae_scale_factor
        options |= {"height": side, "width": side}
        latents = pipeline._pack_latents(latents, *latents.shape)
    pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    prompts = [PROMPTS[label] for label in LABELS]
    try:
        made: torch.Tensor = pipeline(
            prompts, latents=latents.clone(), output_type="latent", **options
        ).images
    finally:
        pipeline.scheduler = before
    if name.startswith("flux"):
        made = pipeline._unpack_latents(made, side, side, pipeline.vae_scale_factor)
    return made


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("name", [name for name in PIPELINES if not name.startswith("dit")])
def test_denoising_is_what_the_pipeline_does(name: str, guidance_scale: float, kinds: Kinds) -> None:
    """Its prompts go in; a flow begins at its second time, at the first there is noise alone."""
    model, pipeline = kinds.model(name), kinds.pipeline(name)
    latents, start = latents_of(model), 0
    options: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": guidance_scale}
    if model.schedule.grid_kind == "flow":
        start = 1
        sigmas = plain_sigmas(pipeline, STEPS)[start:]
        options |= {"sigmas": sigmas, "num_inference_steps": len(sigmas)}
    if name == "flux-schnell":  # its pipeline guides by a second pass only if told by another name
        options |= {"true_cfg_scale": options["guidance_scale"], "negative_prompt": [""] * len(LABELS)}
    expected = _call(pipeline, name, latents, **options)
    assert error(denoise(model, latents, start, guidance_scale), expected) < TOLERANCE
