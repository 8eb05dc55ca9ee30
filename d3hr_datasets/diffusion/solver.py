"""The deterministic solver in both directions: latents <-> inverted latents.

One step over levels of noise, x = signal * x_0 + noise * eps, serves models of betas (then it is DDIM) and of
flow matching (then it is Euler's on the velocity); `multistep` has steps of second order. `CLEAN` (-1) stands
for VAE latents without noise, one step below timestep 0, so a 50-step grid reaches t = 600 in 31 steps.

    symbol of DDIM      here
    x_t                 latents at time t
    sqrt(alpha_t)       schedule.level(t).signal
    eps_theta           predict_noise

diffusers' `DDIMInverseScheduler` is not used: it asks the model for the timestep that a step goes to, one off
from where the latents are (`noise_timestep="target"` here). By `recipes.evaluate.inversion_methods` its round
trip has 2.5 times the error of fixed points in as many evaluations; see `docs/reference-differences.md`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from d3hr_datasets.config.decode_times import count_forward_passes
from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.diffusion.decode_times import decode_times
from d3hr_datasets.diffusion.denoiser import Denoiser
from d3hr_datasets.diffusion.multistep import MultistepSolver
from d3hr_datasets.diffusion.noise_schedule import NoiseLevel
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral

# (latents, predicted noise, level of the latents, level to reach) -> latents there
Step = Callable[[torch.Tensor, torch.Tensor, NoiseLevel, NoiseLevel], torch.Tensor]


@neutral()
def predict_noise(
    denoiser: Denoiser,
    latents: torch.Tensor,
    time: float,
    class_labels: torch.Tensor,
    guidance_scale: float,
    level: NoiseLevel | None = None,
) -> torch.Tensor:
    """Return eps(x_t, t, c) with classifier-free guidance: eps_null + scale * (eps_class - eps_null).

    Guidance is applied to what the network predicts; noise is linear in it, so the order does not matter.

    Args:
        denoiser: The network, what it is conditioned on, and its schedule.
        latents: (B, C, H, W).
        time: Time the network is asked for; the clean end is asked for at 0.
        class_labels: (B,) int64.
        guidance_scale: 1 runs the conditional model alone.
        level: Level of noise of `latents`, if not that of `time`.

    Returns:
        (B, C, H, W) float32.
    """
    schedule = denoiser.schedule
    level = schedule.level(time) if level is None else level
    output = denoiser(latents, schedule.model_time(time), class_labels, guidance_scale)
    latents = latents.float()
    if schedule.prediction_type == "epsilon":
        return output
    if schedule.prediction_type == "v_prediction":
        return level.signal * output + level.noise * latents
    if schedule.prediction_type == "flow_prediction":  # the velocity eps - x_0
        return latents + level.signal * output
    if level.noise == 0:  # the clean latents are those that there are
        return torch.zeros_like(latents)
    return (latents - level.signal * output) / level.noise


@neutral()
def step(
    latents: torch.Tensor, noise: torch.Tensor, level_from: NoiseLevel, level_to: NoiseLevel
) -> torch.Tensor:
    """Carry latents from one level of noise to another, either way.

    Source: DDIM (Song et al., 2021), eq. 12 with eta = 0; with the levels of flow matching it is Euler's step
    x + (sigma' - sigma) * velocity.

    Args:
        latents: (B, C, H, W) at `level_from`.
        noise: (B, C, H, W), the predicted noise.
        level_from: Level of `latents`; its signal is more than 0.
        level_to: Level to reach.

    Returns:
        (B, C, H, W) at `level_to`.
    """
    clean = (latents - level_from.noise * noise) / level_from.signal
    return level_to.signal * clean + level_to.noise * noise


def _walk(
    denoiser: Denoiser,
    latents: torch.Tensor,
    class_labels: torch.Tensor,
    times: Sequence[float],
    config: InversionConfig | DecodeConfig,
    keep: Sequence[float],
    take_step: Step = step,
    *,
    at_target: bool = False,
    lowest: float = CLEAN,
) -> dict[float, torch.Tensor]:
    """Return the latents at the times to keep, of a walk that asks the model once in each step."""
    kept = {times[0]: latents.float()} if times[0] in keep else {}
    latents, schedule = latents.float(), denoiser.schedule
    for source, target in itertools.pairwise(times):
        level = schedule.level(source)
        asked = target if at_target else source
        noise = predict_noise(denoiser, latents, asked, class_labels, config.guidance_at(asked), level)
        latents = take_step(latents, noise, level, schedule.level(max(target, lowest)))
        if target in keep:
            kept[target] = latents
    return kept


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


@neutral()
def invert_latents(
    denoiser: Denoiser, latents: torch.Tensor, class_labels: torch.Tensor, config: InversionConfig
) -> dict[float, torch.Tensor]:
    """Carry VAE latents up to the times of `config`: in one pass, where all of them are on the grid.

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
        path = denoiser.schedule.path(highest, config.num_inference_steps, config.grid, config.first_timestep)
        if config.method == "fixed_point":
            kept |= _walk_fixed_point(denoiser, latents, class_labels, path, config)
        else:
            at_target = config.noise_timestep == "target"
            kept |= _walk(
                denoiser, latents, class_labels, path, config, config.timesteps, at_target=at_target
            )
    return {time: kept[time] for time in config.timesteps}


@neutral()
def denoise_latents(
    denoiser: Denoiser, inverted_latents: torch.Tensor, class_labels: torch.Tensor, config: DecodeConfig
) -> torch.Tensor:
    """Carry inverted latents down to clean VAE latents.

    Args:
        denoiser: The model.
        inverted_latents: (B, C, H, W) at `config.timestep` (the reference starts one step above).
        class_labels: (B,) int64, model side.
        config: Times, solver, guidance.

    Returns:
        (B, C, H, W) float32, VAE latents x scaling factor.

    Raises:
        ConfigError: The model has no such grid, or no such time, or takes guidance as an input and should
            have it in an interval.
    """
    check_guidance(denoiser, config)
    times = decode_times(denoiser.schedule, config)
    take_step: Step = step
    if config.solver != "ddim":
        take_step = MultistepSolver(len(times) - 1, corrects=config.solver == "unipc").step
    lowest = min(1, denoiser.schedule.num_train_timesteps - 1) if config.reference_last_step else CLEAN
    return _walk(denoiser, inverted_latents, class_labels, times, config, (CLEAN,), take_step, lowest=lowest)[
        CLEAN
    ]


def check_guidance(denoiser: Denoiser, config: DecodeConfig) -> None:
    """Check that guidance can be applied as it should be.

    Raises:
        ConfigError: The network takes its scale as an input, so there is no pass without it to leave out.
    """
    if config.guidance_interval is not None and denoiser.kind.embeds_guidance(denoiser.network):
        raise ConfigError(
            f"guidance_interval {config.guidance_interval} leaves out the second pass that guidance takes "
            f"elsewhere, and this model of {denoiser.kind.name} makes none: it is told the scale and asked "
            "once; leave it out"
        )


def forward_passes(denoiser: Denoiser, config: DecodeConfig) -> int:
    """Return how often the network runs for an image, in batches as in single ones.

    Raises:
        ConfigError: As `denoise_latents`.
    """
    check_guidance(denoiser, config)
    times = decode_times(denoiser.schedule, config)[:-1]
    return count_forward_passes(config, times, denoiser.kind.embeds_guidance(denoiser.network))


def inversion_passes(denoiser: Denoiser, config: InversionConfig) -> int:
    """Return how often the network runs to invert an image, as `invert_latents` does; guidance takes two.

    Raises:
        ConfigError: As `invert_latents`.
    """
    evaluations, on_the_way = 0, set()
    for highest in sorted(config.timesteps, reverse=True):
        if highest in on_the_way:
            continue
        path = denoiser.schedule.path(highest, config.num_inference_steps, config.grid, config.first_timestep)
        on_the_way |= {*path}
        if config.method == "fixed_point":  # which asks before its first step, be there one or not
            evaluations += max(1, config.evaluations_per_step * (len(path) - 1))
        else:
            evaluations += len(path) - 1
    doubled = config.guidance_scale != 1 and not denoiser.kind.embeds_guidance(denoiser.network)
    return evaluations * (2 if doubled else 1)
