"""Groups from a class Gaussian: mean and variance -> `ipc` latents that represent it together."""

from __future__ import annotations

import torch

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.settings import GroupSamplingConfig
from d3hr_datasets.errors import ConfigError, StatisticsError
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.sums import ordered_sum
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sampling.group_loss import group_score


def _standard_normal(shape: tuple[int, ...], *seed: int | str) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(derive_seed(*seed)))


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
        ConfigError: `ipc` is no positive integer, the shapes differ, or the method is "modes" or
            "curated".
        StatisticsError: Mean or variance is not finite, or a variance is negative.
    """
    check_int("ipc", ipc, 1)
    if config.method == "modes":
        raise ConfigError("the method 'modes' needs the modes of a class: use sample_modes")
    if config.method == "curated":
        raise ConfigError("the method 'curated' needs the order of an artifact: use sample_candidates")
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
