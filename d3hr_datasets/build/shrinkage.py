"""Variances of classes with few images, drawn towards those that all classes share.

In: class Gaussians by time. Out: the same with v' = (1 - share) v + share v_shared, and each class's share.
A variance of ten images is off by half of itself; the mean of the classes' variances is far less so.

Source: Opgen-Rhein and Strimmer (2007), "Accurate ranking of differentially expressed genes by a
distribution-free shrinkage approach": the share that makes the expected squared error smallest.
Differs from it: the variance of a variance is that of the normal law, 2 v^2 / (n - 1), which inverted latents
follow closely; the target is the pooled variance of each element within classes, not the median of all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from d3hr_datasets.artifact.gaussians import ClassGaussians
from d3hr_datasets.build.shrinkage_choice import Shrinkage
from d3hr_datasets.numerics.sums import ordered_sum
from d3hr_datasets.numerics.torch_settings import neutral

FEW_IMAGES = 100
DIGITS = 4  # of a share; variances are computed with what is noted


@neutral()
def shrink_variances(
    gaussians: Mapping[float, ClassGaussians], shrinkage: Shrinkage
) -> tuple[dict[float, ClassGaussians], tuple[float, ...]]:
    """Draw the variances of each class towards those that all classes share, at all times by the same share.

    Args:
        gaussians: By time.
        shrinkage: Of which classes, and by how much.

    Returns:
        The Gaussians, and the share of each class; none, where all Gaussians stay as they are.
    """
    count = next(iter(gaussians.values())).count
    if shrinkage == "none":
        shares = [0.0] * len(count)
    elif shrinkage == "auto":
        best = best_shares(list(gaussians.values())) if bool((count < FEW_IMAGES).any()) else []
        shares = [best[k] if number < FEW_IMAGES else 0.0 for k, number in enumerate(count.tolist())]
    else:
        shares = [round(shrinkage, DIGITS)] * len(count)
    if not any(shares):
        return dict(gaussians), ()
    return {time: draw_variances(gaussian, shares) for time, gaussian in gaussians.items()}, tuple(shares)


@neutral()
def best_shares(gaussians: Sequence[ClassGaussians]) -> list[float]:
    """Return the share for each class that makes the expected squared error of its variances smallest.

    Args:
        gaussians: Of the same images at one or several times, over which errors are summed.
    """
    noise = torch.zeros(len(gaussians[0]), dtype=torch.float64)
    distance = torch.zeros_like(noise)
    for gaussian in gaussians:
        variance = gaussian.variance.double().flatten(1)
        freedom = (gaussian.count - 1).double()
        noise += ordered_sum(2 * variance.square(), 1) / freedom
        distance += ordered_sum((variance - shared_variance(gaussian).flatten()).square(), 1)
    shares = torch.where(distance > 0, noise / distance.clamp(min=1e-300), 0.0)
    return [round(share, DIGITS) for share in shares.clamp(max=1).tolist()]


@neutral()
def shared_variance(gaussian: ClassGaussians) -> torch.Tensor:
    """Return the variance within classes, pooled over all of them, (C, H, W) float64."""
    weight = (gaussian.count - 1).double()
    weight = (weight / weight.sum()).view(-1, *[1] * (gaussian.variance.dim() - 1))
    return ordered_sum(gaussian.variance.double() * weight, 0)


@neutral()
def draw_variances(gaussian: ClassGaussians, shares: Sequence[float]) -> ClassGaussians:
    """Return Gaussians with the variance of each class drawn by its share towards those that all share."""
    share = torch.tensor(shares, dtype=torch.float64).view(-1, *[1] * (gaussian.variance.dim() - 1))
    variance = (1 - share) * gaussian.variance.double() + share * shared_variance(gaussian)
    return dataclasses.replace(gaussian, variance=variance.to(gaussian.variance.dtype))
