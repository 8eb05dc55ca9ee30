"""Group sampling over modes: the modes of a class -> `ipc` latents that represent it together.

A diagonal Gaussian per class knows nothing of the kinds of image a class is made of. Where an artifact
stores modes, a group is spread over them, and its noise is matched as in `group_sampling`.
"""

from __future__ import annotations

import torch

from d3hr_datasets.config import GroupSamplingConfig, check_int
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.gaussians import ClassModes
from d3hr_datasets.group_sampling import moment_matched_noise


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
    check_int("ipc", ipc, 1)
    if len(modes) != 1:
        raise ConfigError(f"modes must be those of one class, not of {len(modes)}")
    mean, weight = modes.mean[0].detach().double().cpu(), modes.count[0].double().cpu()
    variance = modes.variance[0].detach().double().cpu()
    weight = weight / weight.sum()
    while len(mean) > ipc:
        mean, weight, variance = _join_closest(mean, weight, variance)
    sizes = allocate(weight, ipc)
    centres = mean.repeat_interleave(torch.tensor(sizes), dim=0)
    noise = moment_matched_noise(tuple(variance.shape), ipc, class_label, config.seed)
    return (centres + config.mode_spread * variance.sqrt() * noise).float()


def _join_closest(
    mean: torch.Tensor, weight: torch.Tensor, variance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Join the two modes whose joining adds the least variance; the second one's row goes."""
    squares = torch.cdist(mean.flatten(1), mean.flatten(1)).square()
    cost = squares * weight[:, None] * weight / (weight[:, None] + weight)
    cost.fill_diagonal_(float("inf"))
    first, second = divmod(int(cost.argmin()), len(mean))
    total = weight[first] + weight[second]
    share = weight[second] / total
    delta = mean[second] - mean[first]
    variance = variance + total * share * (1 - share) * delta.square()
    mean, weight = mean.clone(), weight.clone()
    mean[first] += share * delta
    weight[first] = total
    keep = torch.arange(len(mean)) != second
    return mean[keep], weight[keep], variance


def allocate(weight: torch.Tensor, ipc: int) -> list[int]:
    """Return how many of `ipc` latents each mode gives: at least one, else by share.

    Args:
        weight: (M,) shares of the images, which sum to 1; M at most `ipc`.
        ipc: The size of the group.

    Returns:
        M positive integers that sum to `ipc`.
    """
    sizes = [1] * len(weight)
    for _ in range(ipc - len(weight)):  # the next latent goes where most is missing
        missing = [float(share) * ipc - size for share, size in zip(weight, sizes, strict=True)]
        sizes[missing.index(max(missing))] += 1
    return sizes
