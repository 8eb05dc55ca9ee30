"""The loss of a group is that of the paper, its skewness that of scipy."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.stats
import torch

from d3hr_datasets import GroupSamplingConfig, group_score, sample_group
from d3hr_datasets.sampling.group_loss import skewness
from tests.support.gaussians import SHAPE, paper_loss, random_gaussian


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"mean_weight": 0.0},
        {"std_weight": 0.0},
        {"skewness_weight": 0.0},
        {"mean_weight": 2.0, "std_weight": 3.0, "skewness_weight": 0.1},
    ],
)
@pytest.mark.parametrize("ipc", [2, 3, 7])
def test_group_score_is_the_loss_of_the_paper(ipc: int, weights: dict[str, Any]) -> None:
    mean, variance = random_gaussian()
    group = torch.randn(ipc, *SHAPE, generator=torch.Generator().manual_seed(4))
    config = GroupSamplingConfig(**weights)
    assert float(group_score(group, mean, variance, config)) == pytest.approx(
        paper_loss(group, mean, variance, config), rel=1e-4
    )


def test_group_score_of_several_groups_is_that_of_each() -> None:
    mean, variance = random_gaussian()
    groups = torch.randn(2, 3, 4, *SHAPE, generator=torch.Generator().manual_seed(4))
    scores = group_score(groups, mean, variance, GroupSamplingConfig())
    assert scores.shape == (2, 3)
    for row, score in zip(groups.flatten(0, 1), scores.flatten(), strict=True):
        torch.testing.assert_close(score, group_score(row, mean, variance, GroupSamplingConfig()))


def test_group_score_of_one_latent_is_its_distance_from_the_mean() -> None:
    mean, variance = random_gaussian()
    group = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(4))
    score = group_score(group, mean, variance, GroupSamplingConfig(mean_weight=2.0))
    torch.testing.assert_close(score, 2 * (group[0] - mean).norm())


@pytest.mark.parametrize("ipc", [2, 5, 10])
def test_moment_matched_group_scores_zero(ipc: int) -> None:
    mean, variance = random_gaussian()
    group = sample_group(mean, variance, ipc, 0, GroupSamplingConfig())
    assert group_score(group, mean, variance, GroupSamplingConfig()) < 1e-4


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_skewness_is_that_of_scipy(dim: int) -> None:
    samples = torch.rand(7, 6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).pow(3)
    expected = torch.from_numpy(scipy.stats.skew(samples.numpy(), axis=dim))
    assert expected.abs().mean() > 0.1
    torch.testing.assert_close(skewness(samples, dim), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 3.3, -2.7])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 11])
def test_skewness_of_equal_samples_is_zero(count: int, value: float, dtype: torch.dtype) -> None:
    assert skewness(torch.full((count, 2), value, dtype=dtype)).tolist() == [0.0, 0.0]
