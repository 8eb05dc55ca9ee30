"""Inversion: VAE latents -> inverted latents, by DDIM or by more exact ways at the same cost.

diffusers' `DDIMInverseScheduler` is not used: it asks the model for the timestep that a step goes to, one off
from where the latents are (`noise_timestep="target"` here). By `recipes.evaluate.inversion_methods` its round
trip has 2.5 times the error of fixed points in as many evaluations; see `docs/reference-differences.md`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from d3hr_datasets.config.settings import InversionConfig
from d3hr_datasets.diffusion.denoiser import Denoiser
from d3hr_datasets.diffusion.noise_schedule import NoiseLevel
from d3hr_datasets.diffusion.solver import predict_noise, step, walk
from d3hr_datasets.diffusion.walk_times import inversion_times
from d3hr_datasets.numerics.torch_settings import neutral


def _walk_fixed_point(
    denoiser: Denoiser,
    latents: torch.Tensor,
    class_labels: torch.Tensor,
    times: Sequence[float],
    config: InversionConfig,
) -> dict[float, torch.Tensor]:
    """Solve each step for the latents from which denoising comes back to those it started from.

    Source: AIDI (Pan et al., 2023, arXiv 2309.04907); ReNoise (Garibi et al., 2024, arXiv 2403.14602).
    Differs from them: a step is first guessed with the noise that the one before ended with, and not with
    an evaluation of its own. So one evaluation in a step, as many as plain DDIM makes, is already at its end.
    """
    kept = {times[0]: latents.float()} if times[0] in config.timesteps else {}
    latents, schedule = latents.float(), denoiser.schedule
    noise = predict_noise(denoiser, latents, times[0], class_labels, config.guidance_scale)
    for source, target in itertools.pairwise(times):
        level_from, level_to = schedule.level(source), schedule.level(target)
        # The evaluation before the loop is the first of the first step.
        for _ in range(config.evaluations_per_step - (source == times[0])):
            reached = step(latents, noise, level_from, level_to)
            noise = predict_noise(denoiser, reached, target, class_labels, config.guidance_scale)
        latents = step(latents, noise, level_from, level_to)
        if target in config.timesteps:
            kept[target] = latents
    return kept


def _ratio(level: NoiseLevel) -> float:
    """Return noise / signal: in it, latents / signal change at the rate of the predicted noise."""
    return level.noise / level.signal


def _walk_adams(
    denoiser: Denoiser,
    latents: torch.Tensor,
    class_labels: torch.Tensor,
    times: Sequence[float],
    config: InversionConfig,
) -> dict[float, torch.Tensor]:
    """Integrate the same equation to second order: guess with two noises, correct with the one found there.

    d (latents / signal) / d (noise / signal) = predicted noise, of betas as of flow matching.

    Source: the predictor of Adams and Bashforth and the corrector of Adams and Moulton (the trapezoid), of
    order 2 and for steps of any length, in the form PEC: the noise that corrects a step begins the next one.
    See Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section III.1.
    """
    kept = {times[0]: latents.float()} if times[0] in config.timesteps else {}
    latents, schedule = latents.float(), denoiser.schedule
    noise = predict_noise(denoiser, latents, times[0], class_labels, config.guidance_scale)
    change: torch.Tensor | None = None  # of the noise in the step before, divided by that step's length
    for source, target in itertools.pairwise(times):
        level_from, level_to = schedule.level(source), schedule.level(target)
        length = _ratio(level_to) - _ratio(level_from)
        guess = noise if change is None else noise + 0.5 * length * change
        reached = step(latents, guess, level_from, level_to)
        found = predict_noise(denoiser, reached, target, class_labels, config.guidance_scale)
        latents = step(latents, 0.5 * (noise + found), level_from, level_to)
        if length:  # some schedules take clean latents to be at the level of timestep 0
            change = (found - noise) / length
        noise = found
        if target in config.timesteps:
            kept[target] = latents
    return kept


@neutral()
def invert_latents(
    denoiser: Denoiser, latents: torch.Tensor, class_labels: torch.Tensor, config: InversionConfig
) -> dict[float, torch.Tensor]:
    """Carry VAE latents up to the times of `config`: in one walk, where one passes the others.

    Source: D3HR, section 4.1; DDIM inversion.
    Differs from reference: no guidance unless asked for, the model is evaluated at the timestep the latents
    are at, and the walk starts below timestep 0; `reference_import.imported_inversion` has its settings.

    Args:
        denoiser: The model.
        latents: (B, C, H, W), VAE latents x scaling factor.
        class_labels: (B,) int64, model side.
        config: Grid, times, guidance.

    Returns:
        For each of `config.timesteps`, (B, C, H, W) float32.

    Raises:
        ConfigError: The model has no such grid, or no such time.
    """
    kept: dict[float, torch.Tensor] = {}
    for highest in sorted(config.timesteps, reverse=True):
        if highest in kept:  # it lies on the way to a higher one
            continue
        path = inversion_times(denoiser.schedule, config, highest)
        if config.method == "fixed_point":
            kept |= _walk_fixed_point(denoiser, latents, class_labels, path, config)
        elif config.method == "adams":
            kept |= _walk_adams(denoiser, latents, class_labels, path, config)
        else:
            at_target = config.noise_timestep == "target"
            kept |= walk(denoiser, latents, class_labels, path, config, config.timesteps, at_target=at_target)
    return {time: kept[time] for time in config.timesteps}


def inversion_passes(denoiser: Denoiser, config: InversionConfig) -> int:
    """Return how often the network runs to invert an image, as `invert_latents` does; guidance takes two.

    Raises:
        ConfigError: As `invert_latents`.
    """
    evaluations, on_the_way = 0, set()
    for highest in sorted(config.timesteps, reverse=True):
        if highest in on_the_way:
            continue
        path = inversion_times(denoiser.schedule, config, highest)
        on_the_way |= {*path}
        if config.method == "fixed_point":  # which asks before its first step, be there one or not
            evaluations += max(1, config.evaluations_per_step * (len(path) - 1))
        elif config.method == "adams":
            evaluations += len(path)
        else:
            evaluations += len(path) - 1
    doubled = config.guidance_scale != 1 and not denoiser.kind.embeds_guidance(denoiser.network)
    return evaluations * (2 if doubled else 1)
