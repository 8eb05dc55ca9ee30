"""Protocols are checked, and say the learning rate."""

from __future__ import annotations

import math
from typing import Any

import pytest

from d3hr_datasets.errors import ConfigError
from tests.support.tiny_students import protocol


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lamb"}, "optimizer must be one of"),
        ({"milestones": [2.0]}, "fractions of the epochs"),
        ({"schedule": "half_cosine"}, "do not go together"),
        ({"crop_scale": [0.5, 0.1]}, "ascending shares"),
        ({"mean": [0.5, 0.5]}, "a value for each of the 1 channels"),
        ({"lighting": 0.1}, "needs 3 channels"),
        ({"temperature": 0.0}, "must be positive"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_protocols_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        protocol(**changes)


def test_schedules() -> None:
    steps = protocol(epochs=6, milestones=[2 / 3, 5 / 6], gamma=0.2)
    assert [steps.learning_rate_factor(epoch) for epoch in range(6)] == pytest.approx([1, 1, 1, 1, 0.2, 0.04])
    long = protocol(
        epochs=1500, milestones=[0.6666666667, 0.8333333333], gamma=0.2
    )  # as Minimax's file has it
    assert [long.learning_rate_factor(epoch) for epoch in (999, 1000, 1249, 1250)] == pytest.approx(
        [1, 0.2, 0.2, 0.04]
    )
    cosine = protocol(epochs=300, schedule="half_cosine", milestones=[])
    assert cosine.learning_rate_factor(0) == 1
    assert cosine.learning_rate_factor(150) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert cosine.learning_rate_factor(299) == pytest.approx(0.5, abs=0.003)  # ends near one half, not zero
    cycle = protocol(epochs=100, schedule="one_cycle", milestones=[])
    rising, top, falling, last = (cycle.learning_rate_factor(epoch) for epoch in (0, 20, 60, 99))
    assert (rising, top, falling) == pytest.approx((1 / 21, 1, 0.5)) and last < 0.001
    assert cycle.learning_rate_factor(60.9) == falling
    assert steps.learning_rate_factor(4.9) == pytest.approx(0.2)
    short = protocol(epochs=3, schedule="one_cycle", milestones=[])  # 14 changes an epoch
    assert short.learning_rate_factor(0) == pytest.approx(1 / 9.4)
    assert short.learning_rate_factor(1 / 14) == pytest.approx(2 / 9.4)
    assert short.learning_rate_factor(2.99) == pytest.approx(0, abs=0.01)
