"""The times that decoding asks the model at, and what an image costs: settings -> times, forward passes.

Here is what settings alone say; what depends on a model's schedule is in `diffusion.walk_times`.
"""

from __future__ import annotations

from collections.abc import Sequence

from d3hr_datasets.config.decode_steps import counted_times
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.config.timesteps import CLEAN, check_on_grid, timestep_grid
from d3hr_datasets.errors import ConfigError


def start_time(config: DecodeConfig, num_train_timesteps: int) -> float:
    """Return the time that latents are taken to be at.

    Raises:
        ConfigError: The reference would begin above the grid.
    """
    timestep, steps = config.timestep, config.num_inference_steps
    if not config.reference_off_by_one or steps is None:
        return timestep
    check_on_grid(timestep, steps, num_train_timesteps)
    grid = timestep_grid(steps, num_train_timesteps)
    if timestep == grid[-1]:
        raise ConfigError(f"timestep {timestep} is the last of the grid: nothing is one step above it")
    return grid[grid.index(int(timestep)) + 1]


def known_times(config: DecodeConfig, num_train_timesteps: int) -> tuple[float, ...] | None:
    """Return the descending times that the model is asked at, or None where only its schedule tells.

    Raises:
        ConfigError: A timestep is not on the grid.
    """
    if config.num_steps == 1:
        return (config.timestep,)
    if config.num_steps is not None:
        if config.spacing == "logsnr":
            return None
        return counted_times(config.timestep, config.num_steps, config.spacing, config.grid)[::-1]
    if config.grid != "ddim" or config.num_inference_steps is None:
        return None
    start = start_time(config, num_train_timesteps)
    grid = timestep_grid(config.num_inference_steps, num_train_timesteps)
    return tuple(time for time in reversed(grid) if CLEAN < time <= start)


def count_forward_passes(config: DecodeConfig, times: Sequence[float], asked_once: bool = False) -> int:
    """Return how often the network runs for an image: two passes where there is guidance, else one.

    Args:
        config: The settings.
        times: Times that the model is asked at.
        asked_once: Whether the network takes the scale of guidance as an input, and so runs once.
    """
    if asked_once:
        return len(times)
    return sum(1 if config.guidance_at(time) == 1 else 2 for time in times)


def known_forward_passes(config: DecodeConfig, num_train_timesteps: int) -> int | None:
    """Return `count_forward_passes` of a network that does not take guidance as an input.

    None where only the model's schedule tells.

    Raises:
        ConfigError: A timestep is not on the grid.
    """
    times = known_times(config, num_train_timesteps)
    if times is None and config.num_steps is not None and config.guidance_interval is None:
        times = (config.timestep,) * config.num_steps  # where they lie makes no difference
    return None if times is None else count_forward_passes(config, times)
