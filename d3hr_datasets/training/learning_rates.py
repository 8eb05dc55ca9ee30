"""The learning rate, as a function of the step, so that a run can go on anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

WARMUP_SHARE = 0.05  # of a whole run
WARMUP_STEPS = 1000  # of a run whose end may be chosen late

# Step and number of all steps -> factor of the learning rate.
RateFactor = Callable[[int, int], float]


def one_cycle(step: int, total: int, warmup: float) -> float:
    """Return the learning-rate factor of a step: a linear rise over `warmup` of all, then a half cosine to 0.

    It depends on the step alone, so a run may be resumed with another number of epochs.
    """
    rise = max(1.0, warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))


def warmup_stable_decay(step: int, total: int, warmup: int, decay_share: float) -> float:
    """Return the learning-rate factor of a step: a linear rise of `warmup` steps, 1, then a line to 0.

    Until `decay_share` of all steps is left it does not depend on `total`: the end may be chosen late.

    Source: MiniCPM (arXiv 2404.06395), section 4.
    """
    decay = max(1.0, decay_share * total)
    return min(1.0, (step + 1) / (warmup + 1), (total - step) / decay)


def rate_factor(schedule: str, decay_share: float) -> RateFactor:
    """Return the factor of a schedule by its name in the settings."""
    if schedule == "warmup_stable_decay":
        return partial(warmup_stable_decay, warmup=WARMUP_STEPS, decay_share=decay_share)
    return partial(one_cycle, warmup=WARMUP_SHARE)
