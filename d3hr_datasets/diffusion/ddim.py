"""Deterministic DDIM in both directions: latents <-> inverted latents.

Pure functions over a diffusers transformer and `DDIMScheduler`. Timestep -1 (`config.CLEAN`) stands
for VAE latents without noise, one step below timestep 0, so a 50-step grid reaches t = 600 in 31 steps.

    symbol of DDIM      here
    x_t                 latents at timestep t
    alpha_t             alphas_cumprod[t]
    eps_theta           predict_noise

diffusers' `DDIMInverseScheduler` is not used: it asks the model for the timestep that a step goes to, one off
from where the latents are (`noise_timestep="target"` here). By `recipes.evaluate.inversion_methods` its round
trip has 2.5 times the error of fixed points in as many evaluations; see `docs/reference-differences.md`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from d3hr_datasets.config.settings import InversionConfig, NoiseTimestep
from d3hr_datasets.config.timesteps import CLEAN, check_on_grid, timestep_grid
from d3hr_datasets.errors import ModelFormatError
from d3hr_datasets.numerics.torch_settings import neutral


class Transformer(Protocol):
    """What is used of diffusers' `DiTTransformer2DModel`."""

    def __call__(
        self, hidden_states: torch.Tensor, *, timestep: torch.Tensor, class_labels: torch.Tensor
    ) -> Any:
        """Return an output with `sample` (B, C or 2C, H, W)."""


class Scheduler(Protocol):
    """What is used of diffusers' `DDIMScheduler`."""

    alphas_cumprod: torch.Tensor
    final_alpha_cumprod: torch.Tensor
    config: Any


def alpha_cumprod(scheduler: Scheduler, timestep: int) -> float:
    """Return alpha of a timestep; that of the clean end is the scheduler's own (1 for DiT)."""
    alpha = scheduler.final_alpha_cumprod if timestep == CLEAN else scheduler.alphas_cumprod[timestep]
    return float(alpha)


@neutral()
def predict_noise(
    transformer: Transformer,
    scheduler: Scheduler,
    latents: torch.Tensor,
    timestep: int,
    class_labels: torch.Tensor,
    guidance_scale: float,
    null_class_label: int,
    alpha: float | None = None,
) -> torch.Tensor:
    """Return eps(x_t, t, c) with classifier-free guidance: eps_null + scale * (eps_class - eps_null).

    Handles models that predict the noise or v, with or without a learned variance (its half of the
    output is dropped: DDIM has no use for it).

    Args:
        transformer: The model.
        scheduler: Gives alpha and the kind of prediction.
        latents: (B, C, H, W).
        timestep: Timestep the model is asked for; the clean end is asked for at 0.
        class_labels: (B,) int64.
        guidance_scale: 1 runs the class-conditional model alone.
        null_class_label: The label that stands for no class; from the model, never a literal.
        alpha: alpha of `latents`, if not that of `timestep`; needed for v prediction.

    Returns:
        (B, C, H, W) float32.

    Raises:
        ModelFormatError: The scheduler says the model predicts something else.
    """
    inputs, labels = latents, class_labels
    if guidance_scale != 1:
        inputs = torch.cat([latents, latents])
        labels = torch.cat([class_labels, torch.full_like(class_labels, null_class_label)])
    timesteps = torch.full((len(inputs),), max(timestep, 0), device=latents.device)
    dtype = getattr(transformer, "dtype", latents.dtype)
    output: torch.Tensor = transformer(inputs.to(dtype), timestep=timesteps, class_labels=labels).sample
    output = output[:, : latents.shape[1]].float()
    if guidance_scale != 1:
        conditional, unconditional = output.chunk(2)
        output = unconditional + guidance_scale * (conditional - unconditional)
    prediction_type = scheduler.config.prediction_type
    if prediction_type == "epsilon":
        return output
    if prediction_type == "v_prediction":
        alpha = alpha_cumprod(scheduler, timestep) if alpha is None else alpha
        return math.sqrt(alpha) * output + math.sqrt(1 - alpha) * latents.float()
    raise ModelFormatError(
        f"the scheduler says the model predicts {prediction_type!r}; accepted: 'epsilon', 'v_prediction'"
    )


@neutral()
def ddim_step(latents: torch.Tensor, noise: torch.Tensor, alpha_from: float, alpha_to: float) -> torch.Tensor:
    """Carry latents from one noise level to another, either way.

    Source: DDIM (Song et al., 2021), eq. 12 with eta = 0.

    Args:
        latents: (B, C, H, W) at `alpha_from`.
        noise: (B, C, H, W), the predicted noise.
        alpha_from: alpha of `latents`, in (0, 1].
        alpha_to: alpha to reach, in (0, 1].

    Returns:
        (B, C, H, W) at `alpha_to`.
    """
    clean = (latents - math.sqrt(1 - alpha_from) * noise) / math.sqrt(alpha_from)
    return math.sqrt(alpha_to) * clean + math.sqrt(1 - alpha_to) * noise


def _walk(
    transformer: Transformer,
    scheduler: Scheduler,
    latents: torch.Tensor,
    class_labels: torch.Tensor,
    timesteps: Sequence[int],
    guidance_scale: float,
    null_class_label: int,
    noise_timestep: NoiseTimestep,
    keep: Sequence[int],
    lowest: int = CLEAN,
) -> dict[int, torch.Tensor]:
    kept = {timesteps[0]: latents.float()} if timesteps[0] in keep else {}
    latents = latents.float()
    for source, target in itertools.pairwise(timesteps):
        alpha = alpha_cumprod(scheduler, source)
        asked = source if noise_timestep == "source" else target
        noise = predict_noise(
            transformer, scheduler, latents, asked, class_labels, guidance_scale, null_class_label, alpha
        )
        latents = ddim_step(latents, noise, alpha, alpha_cumprod(scheduler, max(target, lowest)))
        if target in keep:
            kept[target] = latents
    return kept


def _walk_fixed_point(
    transformer: Transformer,
    scheduler: Scheduler,
    latents: torch.Tensor,
    class_labels: torch.Tensor,
    timesteps: Sequence[int],
    config: InversionConfig,
    null_class_label: int,
) -> dict[int, torch.Tensor]:
    """Solve each step for the latents from which denoising comes back to those it started from.

    Source: AIDI (Pan et al., 2023, arXiv 2309.04907); ReNoise (Garibi et al., 2024, arXiv 2403.14602).
    Differs from them: a step is first guessed with the noise that the one before ended with, and not with
    an evaluation of its own. So one evaluation in a step, as many as plain DDIM makes, is already at its end.
    """
    kept = {timesteps[0]: latents.float()} if timesteps[0] in config.timesteps else {}
    latents = latents.float()

    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        return predict_noise(
            transformer, scheduler, latents, timestep, class_labels, config.guidance_scale, null_class_label
        )

    noise = predict(latents, timesteps[0])  # the first of the first step
    for source, target in itertools.pairwise(timesteps):
        alpha_from, alpha_to = alpha_cumprod(scheduler, source), alpha_cumprod(scheduler, target)
        for _ in range(config.evaluations_per_step - (source == timesteps[0])):
            noise = predict(ddim_step(latents, noise, alpha_from, alpha_to), target)
        latents = ddim_step(latents, noise, alpha_from, alpha_to)
        if target in config.timesteps:
            kept[target] = latents
    return kept


@neutral()
def invert_latents(
    transformer: Transformer,
    scheduler: Scheduler,
    latents: torch.Tensor,
    class_labels: torch.Tensor,
    config: InversionConfig,
    null_class_label: int,
) -> dict[int, torch.Tensor]:
    """Carry VAE latents up to the timesteps of `config`, all in one pass.

    Source: D3HR, section 4.1; DDIM inversion.
    Differs from reference: no guidance unless asked for, the model is evaluated at the timestep the latents
    are at, and the walk starts below timestep 0; `reference_import.imported_inversion` has its settings.

    Args:
        transformer: The model.
        scheduler: Its noise schedule.
        latents: (B, C, H, W), VAE latents x scaling factor.
        class_labels: (B,) int64, model side.
        config: Grid, timesteps, guidance.
        null_class_label: Label of no class.

    Returns:
        For each timestep of `config.timesteps`, (B, C, H, W) float32.
    """
    grid = timestep_grid(config.num_inference_steps, config.num_train_timesteps)
    path = grid[grid.index(config.first_timestep) : grid.index(max(config.timesteps)) + 1]
    if config.method == "fixed_point":
        return _walk_fixed_point(
            transformer, scheduler, latents, class_labels, path, config, null_class_label
        )
    return _walk(
        transformer,
        scheduler,
        latents,
        class_labels,
        path,
        config.guidance_scale,
        null_class_label,
        config.noise_timestep,
        config.timesteps,
    )


@neutral()
def denoise_latents(
    transformer: Transformer,
    scheduler: Scheduler,
    inverted_latents: torch.Tensor,
    class_labels: torch.Tensor,
    timestep: int,
    num_inference_steps: int,
    guidance_scale: float,
    null_class_label: int,
    lowest: int = CLEAN,
) -> torch.Tensor:
    """Carry inverted latents at `timestep` down to clean VAE latents.

    Args:
        transformer: The model.
        scheduler: Its noise schedule.
        inverted_latents: (B, C, H, W) at `timestep`.
        class_labels: (B,) int64, model side.
        timestep: On the grid; the latents' own timestep (the reference starts one step above).
        num_inference_steps: Steps of the whole grid.
        guidance_scale: Classifier-free guidance.
        null_class_label: Label of no class.
        lowest: Timestep that steps which would go below it end at; 1 in the reference.

    Returns:
        (B, C, H, W) float32, VAE latents x scaling factor.

    Raises:
        ConfigError: `timestep` is not on the grid.
    """
    num_train_timesteps = len(scheduler.alphas_cumprod)
    check_on_grid(timestep, num_inference_steps, num_train_timesteps)
    grid = timestep_grid(num_inference_steps, num_train_timesteps)
    path = grid[grid.index(timestep) :: -1]
    return _walk(
        transformer,
        scheduler,
        inverted_latents,
        class_labels,
        path,
        guidance_scale,
        null_class_label,
        "source",
        (CLEAN,),
        lowest,
    )[CLEAN]
