"""The steps of decoding: names of solvers and spacings, what goes together, and times counted from the start.

In: fields of `DecodeConfig`. Out: the same, checked; and of a number of steps the times they start at.
"""

from __future__ import annotations

from typing import Any, Literal

from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.config.timesteps import CLEAN, GridKind
from d3hr_datasets.errors import ConfigError

GRID_STEPS = 50  # of the whole grid, as in the paper
MAX_STEPS = 65_536

# "ddim": first order, one evaluation of the model in a step (of flow matching: Euler's).
# "dpm++2m": DPM-Solver++ (2M), second order, from the evaluation before.
# "unipc": UniPC of order 2, the same with a corrector, which costs no evaluation.
Solver = Literal["ddim", "dpm++2m", "unipc"]

# How steps that are counted from the start are spaced.
# "uniform": evenly in time; "quadratic": evenly in its square root, closer together near the clean end;
# "cubic": evenly in its cube root, closer still.
# "logsnr": evenly in the logarithm of signal / noise, the last one at the lowest time that has noise.
Spacing = Literal["uniform", "quadratic", "cubic", "logsnr"]
POWERS: dict[Spacing, int] = {"uniform": 1, "quadratic": 2, "cubic": 3}

# Fields of `DecodeConfig` that format 1 has not, and what they are where they are not used.
ADDED: dict[str, Any] = {"solver": "ddim", "num_steps": None, "spacing": "uniform", "guidance_interval": None}


def check_counting(
    timestep: float, num_inference_steps: int | None, num_steps: int | None, spacing: Spacing, grid: GridKind
) -> int | None:
    """Return the steps of the whole grid, or None where steps are counted from the start.

    Raises:
        ConfigError: Steps are counted in both ways, there are none, or more than timesteps.
    """
    check_choice("spacing", spacing, Spacing)
    if num_steps is None:
        if spacing != "uniform":
            raise ConfigError(
                f"spacing={spacing!r} is of steps that are counted from the start: give num_steps, too"
            )
        num_inference_steps = GRID_STEPS if num_inference_steps is None else num_inference_steps
        return check_int("num_inference_steps", num_inference_steps, 1, MAX_STEPS)
    if num_inference_steps is not None:
        raise ConfigError(
            f"num_inference_steps={num_inference_steps} counts the steps of the whole grid, "
            f"num_steps={num_steps!r} those from the start: give one of them, and None for the other"
        )
    check_int("num_steps", num_steps, 1, MAX_STEPS)
    if timestep == CLEAN:
        raise ConfigError(f"timestep {CLEAN} is without noise, and no step starts there: leave out num_steps")
    if grid != "flow":
        check_int("num_steps", num_steps, 1, int(timestep) + 1)  # one at each timestep down to 0
    return None


def check_interval(interval: Any, grid: GridKind) -> tuple[float, float] | None:
    """Return the interval of guidance as floats.

    Raises:
        ConfigError: It is no pair of times in ascending order.
    """
    if interval is None:
        return None
    if not isinstance(interval, tuple | list) or len(interval) != 2:
        raise ConfigError(f"guidance_interval must be a pair of times (low, high), not {interval!r:.80}")
    low, high = (check_number("guidance_interval", time, 0.0) for time in interval)
    if low > high:
        raise ConfigError(f"guidance_interval must be (low, high), the lower time first, not {interval!r}")
    if grid == "flow" and high > 1:
        raise ConfigError(f"guidance_interval must be of sigmas, from 0 to 1, not {interval!r}")
    return low, high


def counted_times(start: float, num_steps: int, spacing: Spacing, grid: GridKind) -> tuple[float, ...]:
    """Return the ascending times that counted steps start at, `start` the last of them.

    Timesteps are integers. Where two would be one, they take the nearest that are free, so that there are
    always as many as are asked for.

    Args:
        start: Time that the first step starts at.
        num_steps: As many of them.
        spacing: One of `POWERS`; "logsnr" depends on the model's schedule.
        grid: Whether times are timesteps or sigmas.
    """
    shares = [((number + 1) / num_steps) ** POWERS[spacing] for number in range(num_steps)]
    if grid == "flow":
        return (*(start * share for share in shares[:-1]), start)
    return apart([round(CLEAN + (start - CLEAN) * share) for share in shares])


def apart(timesteps: list[int]) -> tuple[int, ...]:
    """Return ascending timesteps moved as little as needed to be different ones, at least 0; the last stays.

    There are at most as many as timesteps from 0 to the last.
    """
    found = list(timesteps)
    for place in range(len(found)):
        found[place] = max(found[place], found[place - 1] + 1 if place else 0)
    found[-1] = timesteps[-1]
    for place in reversed(range(len(found) - 1)):
        found[place] = min(found[place], found[place + 1] - 1)
    return tuple(found)
