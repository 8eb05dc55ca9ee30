"""The deterministic solver: a step between levels of noise, and the walk down to clean latents.

One step over levels of noise, x = signal * x_0 + noise * eps, serves models of betas (then it is DDIM) and of
flow matching (then it is Euler's on the velocity); `multistep` has steps of second order, `inversion` the
way up. `CLEAN` (-1) stands
for VAE latents without noise, one step below timestep 0, so a 50-step grid reaches t = 600 in 31 steps.

    symbol of DDIM      here
    x_t                 latents at time t
    sqrt(alpha_t)       schedule.level(t).signal
    eps_theta           predict_noise
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from d3hr_datasets.config.decode_times import count_forward_passes
from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.diffusion.denoiser import Denoiser
from d3hr_datasets.diffusion.multistep import MultistepSolver
from d3hr_datasets.diffusion.noise_schedule import NoiseLevel
from d3hr_datasets.diffusion.walk_times import decode_times
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral

# (latents, predicted noise, level of the latents, level to reach) -> latents there
Step = Callable[[torch.Tensor, torch.Tensor, NoiseLevel, NoiseLevel], torch.Tensor]


@neutral(grad=None)
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


@neutral(grad=None)
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


def walk(
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


@neutral(grad=None)
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
    return walk(denoiser, inverted_latents, class_labels, times, config, (CLEAN,), take_step, lowest=lowest)[
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
