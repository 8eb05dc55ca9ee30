"""Groups from modes: the modes of a class -> `ipc` latents that represent it together.

A diagonal Gaussian per class knows nothing of the kinds of image a class is made of. Where an artifact
stores modes, a group is spread over them, and its noise is matched as in `gaussian_sampling`.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    mean, _, variance, sizes = _spread(modes, ipc)
    noise = moment_matched_noise(tuple(variance.shape), ipc, class_label, config.seed)
    return (mean.repeat_interleave(sizes, dim=0) + config.mode_spread * variance.sqrt() * noise).float()


@neutral()
def modes_of_group(modes: ClassModes, ipc: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mode of each latent of `sample_modes`, (ipc,) int64, and the images behind each mode, (M,).

    Modes are those that the group is spread over: joined where there are more than latents. Arguments and
    errors are those of `sample_modes`; no noise is drawn.
    """
    _, counts, _, sizes = _spread(modes, ipc)
    return torch.arange(len(counts)).repeat_interleave(sizes), counts


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


def _spread(modes: ClassModes, ipc: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the modes that a group is spread over, M of them at most `ipc`, joined where there are more.

    Returns:
        Means (M, *latent), images behind each mode (M,), the variance within them (*latent), and the latents
        that each gives (M,).
    """
    check_int("ipc", ipc, 1)
    if len(modes) != 1:
        raise ConfigError(f"modes must be those of one class, not of {len(modes)}")
    mean, variance = (tensor[0].detach().double().cpu() for tensor in (modes.mean, modes.variance))
    counts = modes.count[0].cpu()
    if len(mean) > ipc:
        mean, counts, variance = _join_closest(mean, counts, variance, ipc)
    return mean, counts, variance, torch.tensor(allocate(counts.tolist(), ipc))


def _join_closest(
    mean: torch.Tensor, counts: torch.Tensor, variance: torch.Tensor, number: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Join the two modes whose joining adds the least variance, until there are `number`.

    Of pairs that add the same the first is joined, in the order of the modes. What is joined takes the place
    of the first mode of the pair; the second one's row goes.
    """
    shape, images = mean.shape[1:], int(counts.sum())
    means, weight = mean.flatten(1).numpy().copy(), counts.double().numpy()
    spread = variance.flatten().numpy()
    left = np.arange(len(means))
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
        cost[second], cost[:, second] = np.inf, np.inf
        before, after = left[left < first], left[left > first]
        cost[before, first] = _costs(means, weight, first, before)
        cost[first, after] = _costs(means, weight, first, after)
    counts = torch.from_numpy(weight[left]).long()
    return torch.from_numpy(means[left]).view(-1, *shape), counts, torch.from_numpy(spread).view(shape)


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
