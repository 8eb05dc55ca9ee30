"""The grid of timesteps: which there are, and whether one is among them."""

from __future__ import annotations

from typing import Any

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.errors import ConfigError

CLEAN = -1  # the timestep of VAE latents without any noise, one step below timestep 0


def timestep_grid(num_inference_steps: int, num_train_timesteps: int) -> tuple[int, ...]:
    """Return the ascending DDIM grid with the clean end: (-1, 0, 20, ..., 980) for 50 of 1000.

    Raises:
        ConfigError: There are more steps than timesteps.
    """
    if num_inference_steps > num_train_timesteps:
        raise ConfigError(
            f"num_inference_steps must be at most num_train_timesteps = {num_train_timesteps}, "
            f"not {num_inference_steps}"
        )
    stride = num_train_timesteps // num_inference_steps
    return (CLEAN, *(index * stride for index in range(num_inference_steps)))


def check_on_grid(timestep: Any, num_inference_steps: int, num_train_timesteps: int) -> int:
    """Return `timestep` if it lies on the grid.

    Raises:
        ConfigError: It does not; the message names the nearest ones.
    """
    check_int("timestep", timestep, CLEAN, num_train_timesteps - 1)
    grid = timestep_grid(num_inference_steps, num_train_timesteps)
    if timestep not in grid:
        nearest = sorted(sorted(grid, key=lambda t: abs(t - timestep))[:2])
        raise ConfigError(
            f"timestep {timestep} is not on the grid of {num_inference_steps} steps; nearest: {nearest}"
        )
    return int(timestep)
