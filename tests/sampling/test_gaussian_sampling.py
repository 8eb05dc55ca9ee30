"""Groups from a class Gaussian: moments, noise, seeds, and what is refused."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from d3hr_datasets import GroupSamplingConfig, group_score, sample_group
from d3hr_datasets.errors import ConfigError, StatisticsError
from d3hr_datasets.sampling import gaussian_sampling
from tests.support.gaussians import SHAPE, paper_loss, random_gaussian

IPCS = [1, 2, 3, 4, 5, 10, 11]
METHODS = [GroupSamplingConfig(), GroupSamplingConfig(method="search", num_candidates=5)]


class _Candidates:
    """Notes every group that the search scores."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[torch.Tensor] = []
        monkeypatch.setattr(gaussian_sampling, "group_score", self)

    def __call__(self, group: torch.Tensor, mean: torch.Tensor, *args: Any) -> torch.Tensor:
        self.groups.extend(group.clone().reshape(-1, *group.shape[-mean.dim() - 1 :]))
        return group_score(group, mean, *args)


@pytest.mark.parametrize("ipc", IPCS)
def test_moment_matched_group_has_the_moments_of_the_gaussian(ipc: int) -> None:
    mean, variance = random_gaussian()
    group = sample_group(mean, variance, ipc, 0, GroupSamplingConfig())
    assert group.shape == (ipc, *SHAPE) and group.dtype == torch.float32 and group.isfinite().all()
    mean, sigma, group = mean.double(), variance.double().sqrt(), group.double()
    torch.testing.assert_close(group.mean(dim=0), mean, rtol=0, atol=1e-6)
    if ipc > 1:
        torch.testing.assert_close(group.std(dim=0, correction=1), sigma, rtol=0, atol=1e-6)
    z = (group - mean) / sigma
    for power in (3, 5):
        torch.testing.assert_close(z.pow(power).mean(dim=0), torch.zeros_like(mean), rtol=0, atol=1e-4)


@pytest.mark.parametrize("ipc", [2, 3, 10, 50, 51])
def test_moment_matched_group_is_exact_for_real_latents(ipc: int) -> None:
    mean, variance = random_gaussian((4, 32, 32))
    group = sample_group(mean, variance, ipc, 7, GroupSamplingConfig(seed=5))
    assert (group.std(dim=0, correction=1) - variance.sqrt()).abs().max() <= 1e-5
    assert (group.mean(dim=0) - mean).abs().max() <= 1e-5


def test_moment_matched_group_of_one_is_the_mean() -> None:
    mean, variance = random_gaussian()
    assert torch.equal(sample_group(mean, variance, 1, 0, GroupSamplingConfig()), mean[None])


@pytest.mark.parametrize("ipc", [2, 3, 5, 10, 11])
def test_no_latent_of_a_moment_matched_group_is_the_mean(ipc: int) -> None:
    mean, variance = random_gaussian()
    group = sample_group(mean, variance, ipc, 0, GroupSamplingConfig())
    on_mean = ((group - mean).abs() < 1e-6).flatten(1).double().mean(dim=1)
    assert on_mean.max() < 0.6
    assert ((group - mean).flatten(1).norm(dim=1) > 0.3 * variance.sqrt().norm()).all()


@pytest.mark.parametrize("ipc", [10, 11])
def test_moment_matched_group_is_random_between_elements(ipc: int) -> None:
    mean, variance = random_gaussian((4, 16, 16))
    z = (sample_group(mean, variance, ipc, 0, GroupSamplingConfig()) - mean) / variance.sqrt()
    assert z.flatten(1).unique(dim=1).shape[1] == mean.numel()
    assert 1.4 < z.pow(4).mean() < 2.5  # signs of one size have 0.8; a Gaussian of known scale has 3


@pytest.mark.parametrize("config", METHODS, ids=lambda config: str(config.method))
@pytest.mark.parametrize("ipc", [2, 5])
def test_group_is_the_same_every_time_and_for_every_global_seed(
    ipc: int, config: GroupSamplingConfig
) -> None:
    mean, variance = random_gaussian()
    groups = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        groups.append(sample_group(mean, variance, ipc, 2, config))
    assert torch.equal(*groups)


@pytest.mark.parametrize("config", METHODS, ids=lambda config: str(config.method))
def test_global_generators_stay_where_they_are(config: GroupSamplingConfig) -> None:
    mean, variance = random_gaussian()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    sample_group(mean, variance, 5, 0, config)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


@pytest.mark.parametrize("config", METHODS, ids=lambda config: str(config.method))
def test_arguments_stay_as_they_are(config: GroupSamplingConfig) -> None:
    mean, variance = random_gaussian()
    before = mean.clone(), variance.clone()
    sample_group(mean, variance, 4, 0, config)
    assert torch.equal(mean, before[0]) and torch.equal(variance, before[1])


@pytest.mark.parametrize("method", ["moment_matched", "search"])
def test_classes_and_seeds_do_not_share_noise(method: Any) -> None:
    mean, variance = torch.zeros(4, 16, 16), torch.ones(4, 16, 16)
    noises = [
        sample_group(
            mean, variance, 2, label, GroupSamplingConfig(method=method, seed=seed, num_candidates=1)
        )[0]
        for label in range(3)
        for seed in range(3)
    ]
    correlations = torch.corrcoef(torch.stack(noises).flatten(1)) - torch.eye(9)
    assert correlations.abs().max() < 0.2


def test_search_candidates_share_no_noise_between_classes_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = _Candidates(monkeypatch)
    mean, variance = random_gaussian()
    for seed in range(3):
        for label in range(3):
            sample_group(mean, variance, 2, label, GroupSamplingConfig("search", seed=seed, num_candidates=4))
    assert len({float(group.flatten()[0]) for group in candidates.groups}) == 3 * 3 * 4


@pytest.mark.parametrize("ipc", [1, 2, 4])
def test_search_returns_the_candidate_of_the_lowest_score(ipc: int, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = _Candidates(monkeypatch)
    mean, variance = random_gaussian()
    config = GroupSamplingConfig(method="search", num_candidates=40)
    group = sample_group(mean, variance, ipc, 1, config)
    assert len(candidates.groups) == 40
    if ipc == 1:
        scores = [float((candidate[0] - mean).norm()) for candidate in candidates.groups]
    else:
        scores = [paper_loss(candidate, mean, variance, config) for candidate in candidates.groups]
    best = scores.index(min(scores))
    assert 0 < best < 39
    torch.testing.assert_close(group, candidates.groups[best], rtol=0, atol=1e-6)


def test_search_draws_from_the_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = _Candidates(monkeypatch)
    mean, variance = random_gaussian()
    sample_group(mean, variance, 10, 0, GroupSamplingConfig(method="search", num_candidates=100))
    z = (torch.cat(candidates.groups) - mean) / variance.sqrt()
    assert z.mean(dim=0).abs().max() < 0.2 and (z.std(dim=0) - 1).abs().max() < 0.15


def test_more_candidates_never_score_worse() -> None:
    mean, variance = random_gaussian()
    scores = []
    for num_candidates in (1, 4, 16, 64):
        config = GroupSamplingConfig(method="search", num_candidates=num_candidates)
        scores.append(paper_loss(sample_group(mean, variance, 5, 0, config), mean, variance, config))
    assert scores == sorted(scores, reverse=True) and scores[-1] < scores[0]


def test_weights_decide_what_the_search_finds() -> None:
    mean, variance = random_gaussian((1, 2, 2))
    weights: list[dict[str, Any]] = [{"std_weight": 0.0, "skewness_weight": 0.0}, {"mean_weight": 0.0}]
    groups = [
        sample_group(mean, variance, 3, 0, GroupSamplingConfig(method="search", num_candidates=100, **chosen))
        for chosen in weights
    ]
    errors = [float((group.mean(dim=0) - mean).norm()) for group in groups]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("method", ["moment_matched", "search"])
def test_group_does_not_depend_on_the_number_of_threads(method: Any) -> None:
    mean, variance = random_gaussian((4, 96, 96))
    config = GroupSamplingConfig(method=method, num_candidates=4)
    groups = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            groups.append(sample_group(mean, variance, 4, 0, config))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(groups[0], groups[1]) and torch.equal(groups[0], groups[2])


@pytest.mark.parametrize("config", METHODS, ids=lambda config: str(config.method))
@pytest.mark.parametrize("ipc", IPCS)
def test_elements_without_variance_stay_on_the_mean(ipc: int, config: GroupSamplingConfig) -> None:
    mean, variance = random_gaussian()
    variance[:, ::2] = 0
    group = sample_group(mean, variance, ipc, 0, config)
    assert group.isfinite().all()
    assert torch.equal(group[:, :, ::2], mean[:, ::2].expand(ipc, -1, -1, -1))
    assert group_score(group, mean, variance, config).isfinite()


@pytest.mark.parametrize("config", METHODS, ids=lambda config: str(config.method))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_gives_float32(dtype: torch.dtype, config: GroupSamplingConfig) -> None:
    mean, variance = (tensor.to(dtype) for tensor in random_gaussian())
    group = sample_group(mean, variance, 4, 0, config)
    assert group.dtype == torch.float32
    assert torch.equal(group, sample_group(mean.double(), variance.double(), 4, 0, config))


@pytest.mark.parametrize("ipc", [0, -1, 1.5, "10", True, None])
def test_group_sizes_that_are_no_positive_integers_are_refused(ipc: Any) -> None:
    with pytest.raises(ConfigError, match="ipc"):
        sample_group(*random_gaussian(), ipc, 0, GroupSamplingConfig())


@pytest.mark.parametrize("config", METHODS, ids=lambda config: str(config.method))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1])
@pytest.mark.parametrize("ipc", [1, 4])
def test_gaussians_that_are_none_are_refused(ipc: int, value: float, config: GroupSamplingConfig) -> None:
    mean, variance = random_gaussian()
    variance[1, 2, 3] = value
    with pytest.raises(StatisticsError, match="class label 7"):
        sample_group(mean, variance, ipc, 7, config)
    if value != -0.1:
        with pytest.raises(StatisticsError, match="class label 7"):
            sample_group(variance, torch.ones(SHAPE), ipc, 7, config)


def test_mean_and_variance_must_be_of_one_shape() -> None:
    with pytest.raises(ConfigError, match="shape"):
        sample_group(torch.zeros(1, 2, 2), torch.ones(2, 2), 2, 0, GroupSamplingConfig())
