"""Modes of a class: their moments, of the images of each, and the values that are none."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from d3hr_datasets import RunningMoments
from d3hr_datasets.errors import StatisticsError
from tests.support.modes import SHAPE, random_modes


def test_rows_taken_together_have_the_moments_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(60, *SHAPE, generator=generator, dtype=torch.float64)
    rows = torch.arange(60) % 6
    apart, together = RunningMoments(6, SHAPE), RunningMoments(2, SHAPE)
    apart.update(latents, rows)
    together.update(latents, rows // 3)
    found, expected = apart.grouped(3).gaussians(), together.gaussians()
    assert found.count.tolist() == expected.count.tolist() == [30, 30]
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.variance, expected.variance)


def test_modes_have_their_own_means_and_a_pooled_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(13, *SHAPE, generator=generator, dtype=torch.float64)
    rows = torch.tensor([0] * 4 + [1] * 3 + [2] * 5 + [3])
    moments = RunningMoments(4, SHAPE)
    moments.update(latents, rows)
    modes = moments.modes(2)
    assert modes.count.tolist() == [[4, 3], [5, 1]]
    torch.testing.assert_close(modes.mean[0, 1], latents[4:7].mean(dim=0))
    squares = latents[:4].var(dim=0, correction=0) * 4 + latents[4:7].var(dim=0, correction=0) * 3
    torch.testing.assert_close(modes.variance[0], squares / 5)


@pytest.mark.parametrize("rows", [[0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2, 3]])
def test_classes_of_too_few_images_for_their_modes_are_refused(rows: list[int]) -> None:
    moments = RunningMoments(4, SHAPE)
    moments.update(torch.zeros(len(rows), *SHAPE), torch.tensor(rows))
    with pytest.raises(StatisticsError, match="2 modes"):
        moments.modes(2)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": torch.zeros(1, 4, 2, 3, 4)},
        {"count": torch.ones(1, 3, dtype=torch.int64)},
        {"count": torch.zeros(1, 4, dtype=torch.int64)},
        {"variance": torch.full((1, *SHAPE), float("nan"))},
        {"variance": torch.full((1, *SHAPE), -1.0)},
        {"mean": torch.full((1, 4, *SHAPE), float("inf"))},
    ],
)
def test_values_that_are_no_modes_are_refused(changes: dict[str, torch.Tensor]) -> None:
    with pytest.raises(StatisticsError):
        dataclasses.replace(random_modes(), **changes)
