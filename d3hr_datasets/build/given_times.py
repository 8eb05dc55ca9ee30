"""Times that people give to a build: what can be said of them with a model's schedule and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.errors import ConfigError

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.noise_schedule import NoiseSchedule

PAPERS_TIMESTEP = 600  # of 1000


def check_time(time: object) -> None:
    """Check a time without knowing the model: an integer from -1, or a sigma."""
    if isinstance(time, float):
        if not 0 < time < 1:
            raise ConfigError(
                f"decode_timestep must be a timestep, an integer, or a sigma between 0 and 1, not {time!r}"
            )
        return
    check_int("decode_timestep", time, CLEAN)


def check_known_time(name: str, time: object, schedule: NoiseSchedule) -> None:
    """Check that a time is of the kind that a model's are.

    Raises:
        ConfigError: It is not; the message says what is accepted.
    """
    is_sigma = isinstance(time, float) and 0 < time < 1
    if schedule.grid_kind == "flow" and not is_sigma and time != CLEAN:
        raise ConfigError(
            f"{name} {time!r} is none of the model's times, which are sigmas, the share of noise (flow "
            f"matching); accepted: a number between 0 and 1, such as 0.6; {CLEAN} stands for latents without "
            "noise"
        )
    if schedule.grid_kind != "flow" and isinstance(time, float):
        raise ConfigError(
            f"{name} {time!r} is none of the model's times, which are timesteps; accepted: an integer from "
            f"{CLEAN} (latents without noise) to {schedule.num_train_timesteps - 1}, such as "
            f"{PAPERS_TIMESTEP}"
        )
