"""The walks between clean latents and inverted ones: settings and a model's schedule -> times."""

from __future__ import annotations

import math

from d3hr_datasets.config.decode_steps import apart, counted_times
from d3hr_datasets.config.decode_times import known_times, start_time
from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.diffusion.noise_schedule import NoiseLevel, NoiseSchedule


def decode_times(schedule: NoiseSchedule, config: DecodeConfig) -> tuple[float, ...]:
    """Return the descending times of a walk down; the model is asked at all of them but the last, `CLEAN`.

    Raises:
        ConfigError: The model has no such grid, or no such time; at the time there is noise alone.
    """
    if config.num_inference_steps is not None:
        start = start_time(config, schedule.num_train_timesteps)
        return schedule.path(start, config.num_inference_steps, config.grid)[::-1]
    # On the finest grid is every time there is; this refuses all others.
    schedule.path(config.timestep, schedule.num_train_timesteps, config.grid)
    times = known_times(config, schedule.num_train_timesteps)
    if times is None:
        times = _uniform_in_log_snr(schedule, config.timestep, config.num_steps or 1)
    return (*times, CLEAN)


def inversion_times(schedule: NoiseSchedule, config: InversionConfig, time: float) -> tuple[float, ...]:
    """Return the ascending times of the walk up to one of the times whose statistics are kept.

    A walk of counted steps also stops at the lower ones of them, at the cost of a step each. It has fewer
    steps where there are fewer timesteps below.

    Raises:
        ConfigError: As `decode_times`.
    """
    if config.num_steps is None or time == CLEAN:
        return schedule.path(time, config.num_inference_steps, config.grid, config.first_timestep)
    schedule.path(time, schedule.num_train_timesteps, config.grid)
    steps = config.num_steps if config.grid == "flow" else min(config.num_steps, int(time) + 1)
    if config.spacing == "logsnr":
        counted = _uniform_in_log_snr(schedule, time, steps)
    else:
        counted = counted_times(time, steps, config.spacing, config.grid)
    kept = (lower for lower in config.timesteps if lower < time)
    return tuple(sorted({CLEAN, *counted, *kept}))


def log_snr(level: NoiseLevel) -> float:
    """Return log(signal / noise), infinite without noise: half of the logarithm of the ratio of powers."""
    return math.inf if level.noise == 0 else math.log(level.signal / level.noise)


def _uniform_in_log_snr(schedule: NoiseSchedule, start: float, steps: int) -> tuple[float, ...]:
    """Return descending times, uniform in log(signal / noise) from the start to the lowest time with noise.

    That is timestep 0, or of flow matching the lowest sigma that a model is trained at, 1 / timesteps.
    """
    if steps == 1:
        return (start,)
    if schedule.grid_kind == "flow":
        lowest = min(1 / schedule.num_train_timesteps, start / 2)
        wanted = _between(log_snr(schedule.level(start)), log_snr(schedule.level(lowest)), steps)
        return (start, *(1 / (1 + math.exp(value)) for value in wanted[1:]))
    known = {time: log_snr(schedule.level(time)) for time in range(int(start) + 1)}
    noisy = [time for time, value in known.items() if value < math.inf] or [int(start)]
    if known[noisy[-1]] == math.inf:  # nothing is left to remove
        return counted_times(start, steps, "uniform", schedule.grid_kind)[::-1]
    wanted = _between(known[noisy[-1]], known[noisy[0]], steps)
    nearest = [min(noisy, key=lambda time: abs(known[time] - value)) for value in reversed(wanted)]
    return apart(nearest)[::-1]


def _between(first: float, last: float, number: int) -> list[float]:
    """Return at least two numbers at equal distances."""
    return [first + (last - first) * index / (number - 1) for index in range(number)]
