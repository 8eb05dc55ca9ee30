"""Group sampling: a class Gaussian -> `ipc` latents that represent it together.

Pure functions. All random numbers come from CPU generators seeded by (seed, class, candidate), so
the same group is drawn on every device, in every order and at every batch size.

What is promised: groups are equal to the bit for any number of threads, in all processes and DataLoader
workers, and under any settings of the caller (`ambient`), on one version of PyTorch and one instruction set
of the CPU. On other instruction sets "moment_matched" and "modes" are equal to the bit where the C library's
logarithm and cosine are, as they were on all that were tried (SSE, AVX2, AVX-512). Noise of "search" is
float32, which PyTorch draws with other last bits without AVX2: its groups agree to 1e-5, unless two
candidates have the same loss to rounding and the other one is taken.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.settings import GroupSamplingConfig
from d3hr_datasets.errors import ConfigError, StatisticsError
from d3hr_datasets.numerics.ambient import neutral
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.sums import ordered_mean, ordered_sum, squared_norm


def _standard_normal(shape: tuple[int, ...], *seed: int | str) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(derive_seed(*seed)))


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


@neutral()
def sample_group(
    mean: torch.Tensor, variance: torch.Tensor, ipc: int, class_label: int, config: GroupSamplingConfig
) -> torch.Tensor:
    """Draw a group of latents from one class Gaussian.

    Args:
        mean: (*latent).
        variance: (*latent).
        ipc: Images per class, the size of the group, at least 1.
        class_label: Mixed into the seed, so that classes do not share their noise (in the reference
            they do).
        config: Method, seed and weights.

    Returns:
        (ipc, *latent) float32 on the CPU.

    Raises:
        ConfigError: `ipc` is no positive integer, the shapes differ, or the method is "modes".
        StatisticsError: Mean or variance is not finite, or a variance is negative.
    """
    check_int("ipc", ipc, 1)
    if config.method == "modes":
        raise ConfigError("the method 'modes' needs the modes of a class: use sample_modes")
    if mean.shape != variance.shape:
        raise ConfigError(f"mean {tuple(mean.shape)} and variance {tuple(variance.shape)} differ in shape")
    mean, variance = mean.detach().double().cpu(), variance.detach().double().cpu()
    if not (mean.isfinite().all() and variance.isfinite().all() and (variance >= 0).all()):
        raise StatisticsError(
            f"the Gaussian of class label {class_label} has a NaN, an infinity or a negative variance; "
            "the statistics are damaged: download or build them again"
        )
    if config.method == "search":
        noise = _search(mean, variance, ipc, class_label, config)
    else:
        noise = moment_matched_noise(tuple(mean.shape), ipc, class_label, config.seed)
    return (mean + variance.sqrt() * noise).float()


def _search(
    mean: torch.Tensor, variance: torch.Tensor, ipc: int, class_label: int, config: GroupSamplingConfig
) -> torch.Tensor:
    """Return the noise of the best of `num_candidates` random groups, one in memory at a time.

    Source: D3HR, section 4.3.
    """
    mu, sigma_squared = mean.float(), variance.float()
    sigma = sigma_squared.sqrt()
    best, best_score = 0, float("inf")
    for candidate in range(config.num_candidates):
        noise = _standard_normal((ipc, *mean.shape), config.seed, class_label, candidate)
        score = float(group_score(mu + sigma * noise, mu, sigma_squared, config))
        if score < best_score:
            best, best_score = candidate, score
    return _standard_normal((ipc, *mean.shape), config.seed, class_label, best).double()


@neutral()
def moment_matched_noise(shape: tuple[int, ...], ipc: int, class_label: int, seed: int) -> torch.Tensor:
    """Return noise (ipc, *shape) of mean 0, unbiased std 1 and vanishing odd moments, per element.

    Antithetic pairs z, -z, side by side, remove all odd moments, and a scale per element then sets the
    standard deviation without bringing any back. An odd group has one triple: per element the values
    c, 0, -c in an order of its own, so that no single latent sits on the mean (where the diffusion
    model, which expects noise, gives blurred images).

    A group of one can match the mean only, and is the mean. It is also the limit of the rest: the
    squared deviations of a matched group sum to (ipc - 1) sigma^2, none at ipc = 1.
    """
    if ipc == 1:
        return torch.zeros(1, *shape, dtype=torch.float64)
    generator = torch.Generator().manual_seed(derive_seed(seed, class_label, "moment_matched"))
    odd = ipc % 2
    half = torch.randn(((ipc - 3 * odd) // 2, *shape), generator=generator, dtype=torch.float64)
    parts = [torch.stack([half, -half], dim=1).flatten(0, 1)]
    if odd:
        triple = torch.randn(shape, generator=generator, dtype=torch.float64)
        order = torch.rand((3, *shape), generator=generator).argsort(dim=0, stable=True)
        parts.append(torch.stack([triple, torch.zeros_like(triple), -triple]).gather(0, order))
    noise = torch.cat(parts)
    smallest = torch.finfo(torch.float32).tiny
    scale = ((ipc - 1) / ordered_sum(noise.square(), 0).clamp(min=smallest)).sqrt()
    return noise * scale


# Images per block of a nested set; the usual sizes 10, 50 and 100 are whole blocks.
NESTED_BLOCK = 10


@neutral()
def sample_nested(
    draw: Callable[[int, GroupSamplingConfig], torch.Tensor], ipc: int, config: GroupSamplingConfig
) -> torch.Tensor:
    """Draw a group in whole blocks, each of which depends on its number only.

    The first k latents for `ipc` = n are those for `ipc` = k. The price: moments are those of the class
    at multiples of `NESTED_BLOCK` only ("moment_matched"; the mean at even numbers, too), and not between;
    and each block is spread over no more modes than it has latents ("modes").

    Args:
        draw: Draws a group of a class of the size and with the settings given, (size, *latent).
        ipc: Images per class, at least 1.
        config: Method, seed and weights; each block is sampled by itself.

    Returns:
        (B, *latent) float32 on the CPU, B = `ipc` rounded up to whole blocks.

    Raises:
        ConfigError: `ipc` is no positive integer.
    """
    check_int("ipc", ipc, 1)
    blocks = []
    for block in range(-(-ipc // NESTED_BLOCK)):
        seed = derive_seed(config.seed, "nested", block)
        group = draw(NESTED_BLOCK, dataclasses.replace(config, seed=seed))
        if config.method == "moment_matched" and block > 0:
            # m blocks of b latents need mb - 1 squared deviations; each has b - 1 by itself.
            mean = ordered_mean(group, 0)
            group = mean + (group - mean) * math.sqrt(NESTED_BLOCK / (NESTED_BLOCK - 1))
        blocks.append(group)
    return torch.cat(blocks)
