"""Learning rates and the order of images depend on the step alone."""

from __future__ import annotations

import itertools

import pytest
import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.training.batches import shuffled_batches
from d3hr_datasets.training.learning_rates import one_cycle, rate_factor, warmup_stable_decay


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
    with pytest.raises(ConfigError, match="larger than"):
        next(shuffled_batches(2, 3, seed=0, step=0))


def test_one_cycle_rises_and_falls_to_zero() -> None:
    factors = [one_cycle(step, 100, 0.1) for step in range(101)]
    assert max(factors) == factors[10] == 1
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0)


def test_neighbours_stay_near_where_disks_need_it() -> None:
    batches = shuffled_batches(20, 5, seed=1, step=0, mixed=8)
    seen = torch.cat([next(batches) for _ in range(4)])
    assert sorted(seen.tolist()) == list(range(20)) and seen.tolist() != list(range(20))
    groups = (seen // 8).tolist()  # 0 to 7, 8 to 15, 16 to 19, each whole before another begins
    assert sum(one != other for one, other in itertools.pairwise(groups)) == 2
    again = shuffled_batches(20, 5, seed=1, step=6, mixed=8)
    assert torch.equal(next(again), [next(batches) for _ in range(3)][2])
    whole = next(shuffled_batches(20, 5, seed=1, step=0))
    assert torch.equal(next(shuffled_batches(20, 5, seed=1, step=0, mixed=20)), whole)


def test_schedules_have_names() -> None:
    assert rate_factor("one_cycle", 0.2)(0, 100) == one_cycle(0, 100, 0.05)
    assert rate_factor("warmup_stable_decay", 0.5)(75, 100) == warmup_stable_decay(75, 100, 1000, 0.5)
