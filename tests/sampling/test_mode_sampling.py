"""Groups are sampled from modes: each gives latents by its share, around its own mean."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from d3hr_datasets import ClassModes, GroupSamplingConfig, sample_group, sample_modes
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sampling.mode_sampling import allocate, mode_shares
from tests.support.modes import SHAPE, random_modes

CONFIG = GroupSamplingConfig("modes", seed=3, mode_spread=1.0)


def _class_mean(modes: ClassModes) -> torch.Tensor:
    weight = (modes.count[0] / modes.count.sum()).view(-1, *[1] * len(SHAPE))
    return (modes.mean[0] * weight).sum(dim=0)


@pytest.mark.parametrize(
    ("counts", "ipc", "sizes"),
    [
        ([40, 10, 30, 20], 4, [1, 1, 1, 1]),
        ([40, 10, 30, 20], 10, [4, 1, 3, 2]),
        ([40, 10, 30, 20], 20, [8, 2, 6, 4]),
        ([97, 1, 1, 1], 10, [7, 1, 1, 1]),
        ([5], 3, [3]),
        ([7, 7, 7], 5, [2, 2, 1]),  # of equals the first
    ],
)
def test_modes_give_latents_by_their_share_and_at_least_one(
    counts: list[int], ipc: int, sizes: list[int]
) -> None:
    assert allocate(counts, ipc) == sizes


def test_group_of_one_is_the_mean_of_the_class() -> None:
    modes = random_modes()
    torch.testing.assert_close(sample_modes(modes, 1, 0, CONFIG)[0], _class_mean(modes))


def test_latents_lie_around_the_means_of_their_modes() -> None:
    modes = random_modes()
    group = sample_modes(modes, 100, 0, CONFIG)
    nearest = torch.cdist(group.flatten(1), modes.mean[0].flatten(1)).argmin(dim=1)
    assert nearest.bincount().tolist() == [40, 10, 30, 20]
    residual = group - modes.mean[0][nearest]
    torch.testing.assert_close(residual.mean(dim=0), torch.zeros(SHAPE), atol=1e-5, rtol=0)
    torch.testing.assert_close(residual.var(dim=0), modes.variance[0])


@pytest.mark.parametrize("ipc", [1, 2, 3])
def test_joined_modes_keep_mean_and_variance_of_the_class(ipc: int) -> None:
    modes = random_modes((30, 30, 30, 30))
    mean = modes.mean.clone()
    mean[0, 1], mean[0, 3] = mean[0, 0] + 0.1, mean[0, 2] + 0.2
    modes = dataclasses.replace(modes, mean=mean)
    group = sample_modes(modes, ipc, 0, CONFIG)
    assert group.shape == (ipc, *SHAPE) and group.isfinite().all()
    if ipc == 2:  # the close pairs were joined; the noise is z and -z / sqrt(2) of the joined variance
        expected = torch.stack([mean[0, :2].mean(dim=0), mean[0, 2:].mean(dim=0)])
        variance = modes.variance[0] + (0.05**2 + 0.1**2) / 2
        torch.testing.assert_close(group.mean(dim=0), expected.mean(dim=0))
        torch.testing.assert_close((group - expected)[0].square(), variance / 2)


def test_spread_widens_a_group_about_its_modes() -> None:
    modes = random_modes()
    exact, wide = (
        sample_modes(modes, 100, 0, GroupSamplingConfig("modes", mode_spread=spread)) for spread in (1.0, 1.5)
    )
    centres = modes.mean[0].repeat_interleave(torch.tensor([40, 10, 30, 20]), dim=0)
    torch.testing.assert_close(wide - centres, 1.5 * (exact - centres), atol=1e-5, rtol=1e-5)


def test_groups_depend_on_seed_and_class_only() -> None:
    modes = random_modes()
    group = sample_modes(modes, 7, 1, CONFIG)
    torch.manual_seed(99)
    assert torch.equal(group, sample_modes(modes, 7, 1, CONFIG))
    assert not torch.equal(group, sample_modes(modes, 7, 2, CONFIG))
    assert not torch.equal(group, sample_modes(modes, 7, 1, dataclasses.replace(CONFIG, seed=4)))


@pytest.mark.parametrize("ipc", [0, -1, 1.5, True])
def test_ipc_that_is_no_positive_integer_is_refused(ipc: Any) -> None:
    with pytest.raises(ConfigError, match="ipc"):
        sample_modes(random_modes(), ipc, 0, CONFIG)


def test_modes_of_several_classes_are_refused() -> None:
    modes = random_modes()
    two = ClassModes(*(tensor.repeat(2, *[1] * (tensor.dim() - 1)) for tensor in dataclasses.astuple(modes)))
    with pytest.raises(ConfigError, match="one class"):
        sample_modes(two, 3, 0, CONFIG)


def test_one_gaussian_cannot_be_sampled_by_modes() -> None:
    with pytest.raises(ConfigError, match="sample_modes"):
        sample_group(torch.zeros(SHAPE), torch.ones(SHAPE), 3, 0, CONFIG)


@pytest.mark.parametrize("ipc", [1, 2, 3, 4, 7])
def test_shares_are_those_of_the_means_in_each_latent(ipc: int) -> None:
    """Also of joined modes: without noise a group is the shares times the means."""
    modes = random_modes()
    shares = mode_shares(modes, ipc)
    assert shares.shape == (ipc, 4)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(ipc))
    plain = dataclasses.replace(CONFIG, mode_spread=0.0)
    expected = torch.tensordot(shares, modes.mean[0], dims=1)
    torch.testing.assert_close(sample_modes(modes, ipc, 0, plain), expected)
