"""Groups from modes: the modes of a class -> `ipc` latents that represent it together.

A diagonal Gaussian per class knows nothing of the kinds of image a class is made of. Where an artifact
stores modes, a group is spread over them, and its noise is matched as in `gaussian_sampling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from d3hr_datasets.artifact.gaussians import ClassModes
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.settings import GroupSamplingConfig
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sampling.gaussian_sampling import moment_matched_noise


@neutral()
def sample_modes(modes: ClassModes, ipc: int, class_label: int, config: GroupSamplingConfig) -> torch.Tensor:
    """Draw a group of latents from the modes of one class.

    Every mode gives at least one latent, and as many as its share of the images. Where there are more
    modes than latents the closest ones are joined (Ward, 1963) until there are `ipc`; joining adds the
    spread between their means to the variance. So a group of one is the mean of the class.

    Args:
        modes: Of one class (K = 1), M modes.
        ipc: Images per class, the size of the group, at least 1.
        class_label: Mixed into the seed.
        config: The seed, and the spread about the modes.

    Returns:
        (ipc, *latent) float32 on the CPU.

    Raises:
        ConfigError: `ipc` is no positive integer, or `modes` are of several classes.
    """
    spread = _spread(modes, ipc)
    noise = moment_matched_noise(tuple(spread.variance.shape), ipc, class_label, config.seed)
    centres = spread.mean.repeat_interleave(spread.sizes, dim=0)
    return (centres + config.mode_spread * spread.variance.sqrt() * noise).float()


@neutral()
def modes_of_group(modes: ClassModes, ipc: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mode of each latent of `sample_modes`, (ipc,) int64, and the images behind each mode, (M,).

    Modes are those that the group is spread over: joined where there are more than latents. Arguments and
    errors are those of `sample_modes`; no noise is drawn.
    """
    spread = _spread(modes, ipc)
    return torch.arange(len(spread.counts)).repeat_interleave(spread.sizes), spread.counts


@neutral()
def mode_shares(modes: ClassModes, ipc: int) -> torch.Tensor:
    """Return the share that the mean of each mode has in each latent of `sample_modes`, (ipc, M) float32.

    A latent is the mean of its mode, or the weighted mean of those that are joined to one, plus noise. So the
    shares of a latent sum to 1, and are the derivative of `sample_modes` by the means, as long as the same
    modes are joined; but for the variance, to which the spread between joined means adds. Arguments and
    errors are those of `sample_modes`.
    """
    spread = _spread(modes, ipc)
    shares = torch.zeros(len(spread.counts), len(spread.joined), dtype=torch.float64)
    of_mode = modes.count[0].cpu().double() / spread.counts.double()[spread.joined]
    shares[spread.joined, torch.arange(len(spread.joined))] = of_mode
    return shares.repeat_interleave(spread.sizes, dim=0).float()


@neutral()
def share_images(drawn: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return how many real images each latent stands for: the images of a mode, shared by its latents.

    Args:
        drawn: (N,) int64, the mode of each latent.
        counts: (M,) images behind each mode.

    Returns:
        (N,) float64. Each mode that has a latent has its images in sum.
    """
    latents = drawn.bincount(minlength=len(counts)).double()
    return (counts.double() / latents.clamp(min=1))[drawn]


@dataclass(frozen=True)
class _Spread:
    """The modes that a group is spread over, N of them, joined of M.

    Args:
        mean: (N, *latent).
        counts: (N,) int64, images behind each.
        variance: (*latent), within them.
        sizes: (N,) int64, the latents that each gives.
        joined: (M,) int64, which of the N each of the M is part of.
    """

    mean: torch.Tensor
    counts: torch.Tensor
    variance: torch.Tensor
    sizes: torch.Tensor
    joined: torch.Tensor


def _spread(modes: ClassModes, ipc: int) -> _Spread:
    """Return the modes that a group is spread over, at most `ipc`, joined where there are more."""
    check_int("ipc", ipc, 1)
    if len(modes) != 1:
        raise ConfigError(f"modes must be those of one class, not of {len(modes)}")
    mean, variance = (tensor[0].detach().double().cpu() for tensor in (modes.mean, modes.variance))
    counts, joined = modes.count[0].cpu(), torch.arange(len(mean))
    if len(mean) > ipc:
        mean, counts, variance, joined = _join_closest(mean, counts, variance, ipc)
    return _Spread(mean, counts, variance, torch.tensor(allocate(counts.tolist(), ipc)), joined)


def _join_closest(
    mean: torch.Tensor, counts: torch.Tensor, variance: torch.Tensor, number: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Join the two modes whose joining adds the least variance, until there are `number`.

    Of pairs that add the same the first is joined, in the order of the modes. What is joined takes the place
    of the first mode of the pair; the second one's row goes.
    """
    shape, images = mean.shape[1:], int(counts.sum())
    means, weight = mean.flatten(1).numpy().copy(), counts.double().numpy()
    spread = variance.flatten().numpy()
    left, joined = np.arange(len(means)), np.arange(len(means))
    cost = np.full((len(means), len(means)), np.inf)  # of pairs i < j
    for row in range(len(means)):
        cost[row, row + 1 :] = _costs(means, weight, row, left[row + 1 :])
    while len(left) > number:
        first, second = divmod(int(cost.argmin()), len(means))  # argmin is the first one of equals
        total = weight[first] + weight[second]
        share = weight[second] / total
        delta = means[second] - means[first]
        spread = spread + total / images * share * (1 - share) * np.square(delta)
        means[first] += share * delta
        weight[first] = total
        left = left[left != second]
        joined[joined == second] = first
        cost[second], cost[:, second] = np.inf, np.inf
        before, after = left[left < first], left[left > first]
        cost[before, first] = _costs(means, weight, first, before)
        cost[first, after] = _costs(means, weight, first, after)
    counts = torch.from_numpy(weight[left]).long()
    mean = torch.from_numpy(means[left]).view(-1, *shape)
    rows = torch.from_numpy(np.searchsorted(left, joined))
    return mean, counts, torch.from_numpy(spread).view(shape), rows


def _costs(
    means: npt.NDArray[Any], weight: npt.NDArray[Any], index: int, others: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return what joining one mode with others adds to the squared deviations.

    The same bits whichever of two modes is the one, as those of `torch.cdist` are not.
    """
    distances = np.add.reduce(np.square(means[others] - means[index]), axis=1)
    costs: npt.NDArray[Any] = distances * (weight[others] * weight[index] / (weight[others] + weight[index]))
    return costs


def allocate(counts: Sequence[int], ipc: int) -> list[int]:
    """Return how many of `ipc` latents each mode gives: at least one, else by share.

    Args:
        counts: Images behind each of M modes; M at most `ipc`.
        ipc: The size of the group.

    Returns:
        M positive integers that sum to `ipc`.
    """
    sizes, total = [1] * len(counts), sum(counts)
    for _ in range(ipc - len(counts)):  # the next latent goes where most is missing, of equals to the first
        missing = [count * ipc - size * total for count, size in zip(counts, sizes, strict=True)]
        sizes[missing.index(max(missing))] += 1
    return sizes
