"""Candidates are drawn from their number alone, around the modes of their class by their share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from d3hr_datasets import ClassGaussians, ClassModes, sample_candidates
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sampling.curated_sampling import modes_of_candidates
from tests.support.modes import SHAPE, random_modes


def _gaussian() -> ClassGaussians:
    generator = torch.Generator().manual_seed(0)
    mean, variance = (torch.rand(1, *SHAPE, generator=generator) for _ in range(2))
    return ClassGaussians(mean, variance, torch.tensor([40]))


def test_a_candidate_depends_on_seed_class_and_number_only() -> None:
    modes = random_modes()
    drawn = sample_candidates(modes, range(20), 1, mode_spread=1.15)
    assert drawn.shape == (20, *SHAPE) and drawn.dtype == torch.float32
    again = sample_candidates(modes, torch.tensor([7, 3, 7]), 1, mode_spread=1.15)
    assert torch.equal(again, drawn[[7, 3, 7]])
    others: list[dict[str, Any]] = [{"class_label": 2}, {"seed": 1}]
    for changes in others:
        values: dict[str, Any] = {"class_label": 1, "mode_spread": 1.15, **changes}
        assert not torch.equal(sample_candidates(modes, [0], **values), drawn[:1])


def test_modes_are_chosen_by_their_share_and_noise_lies_around_them() -> None:
    modes, numbers = random_modes(), range(2000)
    chosen = modes_of_candidates(modes, numbers, 0)
    shares = chosen.bincount(minlength=4) / len(numbers)
    assert (shares - torch.tensor([0.4, 0.1, 0.3, 0.2])).abs().max() < 0.03
    assert (
        modes_of_candidates(modes, [], 0).dtype == chosen.dtype
    )  # of a class that a teacher knows nothing of
    noise = sample_candidates(modes, numbers, 0, mode_spread=2.0) - modes.mean[0][chosen]
    assert noise.mean().abs() < 0.05
    ratio = noise.var(dim=0) / modes.variance[0]
    assert (ratio - 4.0).abs().max() < 0.7


def test_a_gaussian_has_its_own_spread() -> None:
    gaussian = _gaussian()
    drawn = sample_candidates(gaussian, range(2000), 0)
    assert ((drawn.mean(dim=0) - gaussian.mean[0]) / gaussian.variance[0].sqrt()).abs().max() < 0.1
    assert (drawn.var(dim=0) / gaussian.variance[0] - 1).abs().max() < 0.15
    with pytest.raises(ConfigError, match="mode_spread is of modes"):
        sample_candidates(gaussian, [0], 0, mode_spread=1.0)


def test_what_is_no_candidate_is_refused() -> None:
    modes = random_modes()
    parts = (modes.mean, modes.variance, modes.count)
    several = ClassModes(*(part.repeat(2, *[1] * (part.dim() - 1)) for part in parts))
    for numbers in ([-1], [True], [0.5]):
        with pytest.raises(ConfigError, match="the number of a candidate must be"):
            sample_candidates(modes, numbers, 0, mode_spread=1.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="mode_spread must be a finite number"):
        sample_candidates(modes, [0], 0)
    with pytest.raises(ConfigError, match="seed must be at least 0"):
        sample_candidates(modes, [0], 0, seed=-1, mode_spread=1.0)
    with pytest.raises(ConfigError, match="of one class, not of 2"):
        sample_candidates(several, [0], 0, mode_spread=1.0)
    with pytest.raises(ConfigError, match="of one class, not of 2"):
        modes_of_candidates(several, [0], 0)
