"""Learning rates and the order of images depend on the step alone."""

from __future__ import annotations

import pytest
import torch

from recipes.common.batches import shuffled_batches
from recipes.common.errors import RecipeError
from recipes.common.learning_rates import one_cycle, warmup_stable_decay


def test_the_learning_rate_of_a_long_training_does_not_depend_on_its_end_until_it_falls() -> None:
    rates = [warmup_stable_decay(step, 100, 9, 0.2) for step in range(101)]
    assert rates[0] == 0.1
    assert rates[9:81] == [1.0] * 72
    assert (rates[90], rates[100]) == (0.5, 0.0)
    assert [warmup_stable_decay(step, 1000, 9, 0.2) for step in range(81)] == rates[:81]


def test_batches_cover_an_epoch_and_continue_anywhere() -> None:
    batches = shuffled_batches(10, 3, seed=1, step=0)
    seen = [next(batches) for _ in range(7)]
    assert len(torch.cat(seen[:3]).unique()) == 9
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:6]))
    assert torch.equal(next(shuffled_batches(10, 3, seed=1, step=5)), seen[5])
    with pytest.raises(RecipeError, match="larger than"):
        next(shuffled_batches(2, 3, seed=0, step=0))


def test_one_cycle_rises_and_falls_to_zero() -> None:
    factors = [one_cycle(step, 100, 0.1) for step in range(101)]
    assert max(factors) == factors[10] == 1
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0)
