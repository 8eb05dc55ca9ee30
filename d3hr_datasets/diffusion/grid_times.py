"""The times of a model's grid at which something of an image is left: a schedule -> times."""

from __future__ import annotations

from d3hr_datasets.config.timesteps import CLEAN, GridKind, timestep_grid
from d3hr_datasets.diffusion.noise_schedule import NoiseSchedule


def grid_times(schedule: NoiseSchedule, num_inference_steps: int, grid: GridKind) -> tuple[float, ...]:
    """Return the ascending times of a grid that a walk may end at.

    They begin with the clean end. At the top of a flow-matching model's grid, and of some others, there is
    noise alone: a walk cannot come back from there, so that time is left out.

    Args:
        schedule: Of the model.
        num_inference_steps: Steps of the whole grid.
        grid: Which grid.

    Raises:
        ConfigError: There are more steps than timesteps.
    """
    if grid == "ddim":
        times: tuple[float, ...] = timestep_grid(num_inference_steps, schedule.num_train_timesteps)
    else:
        times = (CLEAN, *schedule.scheduler_times(num_inference_steps))
    return tuple(time for time in times if schedule.level(time).signal > 0)
