"""The times of a diffusion model: which there are on a grid of steps, and whether one is among them.

A time is a timestep, an integer, or of a flow-matching model the share of noise sigma, a float.
"""

from __future__ import annotations

from typing import Any, Literal

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.errors import ConfigError

CLEAN = -1  # the time of VAE latents without any noise, one step below timestep 0

# "ddim": timesteps that are multiples of the grid's stride; so artifacts of format 1 have them.
# "scheduler": timesteps as the model's own scheduler spaces them, such as 1, 21, ... of Stable Diffusion.
# "flow": sigmas as the model's flow-matching scheduler spaces them.
GridKind = Literal["ddim", "scheduler", "flow"]


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
    """Return `timestep` if it lies on the DDIM grid.

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


def check_time(time: Any, grid: GridKind, num_train_timesteps: int = 65_536) -> float:
    """Return `time` if a model of such a grid knows it; a walk may begin and end between two steps.

    Raises:
        ConfigError: It is none.
    """
    if grid != "flow":
        return check_int("timestep", time, CLEAN, num_train_timesteps - 1)
    is_number = isinstance(time, (int, float)) and not isinstance(time, bool)
    if not is_number or not (time == CLEAN or 0 < time < 1):
        raise ConfigError(
            f"timestep must be a sigma between 0 and 1, the share of noise, not {time!r}: the model is one "
            f"of flow matching; {CLEAN} stands for latents without noise"
        )
    return CLEAN if time == CLEAN else float(time)
