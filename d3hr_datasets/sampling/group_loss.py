"""The loss of a group: latents and their class Gaussian -> how well they represent it together."""

from __future__ import annotations

import torch

from d3hr_datasets.config.settings import GroupSamplingConfig
from d3hr_datasets.numerics.sums import ordered_mean, ordered_sum, squared_norm
from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def group_score(
    group: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, config: GroupSamplingConfig
) -> torch.Tensor:
    """Return the representativeness loss of one or several groups, lower is better.

    L = mean_weight ||mean(S) - mu|| + std_weight ||std(S) - sigma|| + skewness_weight ||skewness(S)||.

    Source: D3HR, eq. 11-13. The standard deviation is the unbiased one.
    Differs from reference: skewness is taken per element over the group, where the reference
    standardises over the group and sums over the elements; and a group of one has neither a standard
    deviation nor a skewness, so these terms are left out, where the reference gets NaN and crashes.

    Args:
        group: (..., ipc, *latent).
        mean: (*latent).
        variance: (*latent).
        config: The weights.

    Returns:
        (...): one loss per group.
    """
    axis = -mean.dim() - 1
    group_mean = ordered_mean(group, axis)
    score = config.mean_weight * squared_norm(group_mean - mean, mean.dim()).sqrt()
    if group.shape[axis] > 1:
        deviations = group - group_mean.unsqueeze(axis)
        std = (ordered_sum(deviations.square(), axis) / (group.shape[axis] - 1)).sqrt()
        score = score + config.std_weight * squared_norm(std - variance.sqrt(), mean.dim()).sqrt()
        if config.skewness_weight:
            skewnesses = skewness(group, axis)
            score = score + config.skewness_weight * squared_norm(skewnesses, mean.dim()).sqrt()
    return score


@neutral()
def skewness(samples: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Return m3 / m2^1.5 along `dim` with the biased moments; 0 where all samples are equal."""
    deviations = samples - ordered_mean(samples, dim).unsqueeze(dim)
    equal = (samples == samples.narrow(dim, 0, 1)).all(dim=dim)  # their mean may differ by a rounding
    squares = deviations.square()
    second, third = ordered_mean(squares, dim), ordered_mean(squares * deviations, dim)
    divisor = second.clamp(min=1e-30)
    divisor = divisor * divisor.sqrt()  # pow(1.5) has other last bits in a vector than at its end
    return torch.where(~equal & (second > 0), third / divisor, 0.0)
