"""The private release: exact sums of clipped latents -> noisy sums -> class Gaussians.

Noise is added once, to whole numbers. All that follows sees the noisy numbers only, so it costs no privacy:
means, variances, and how far both are drawn towards what the classes have in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import torch
from tqdm import tqdm

from d3hr_datasets.artifact.gaussians import ClassGaussians
from d3hr_datasets.artifact.latent_sums import MAX_ENERGY, LatentSums
from d3hr_datasets.artifact.privacy import Privacy
from d3hr_datasets.artifact.units import SQUARE_UNIT, UNIT
from d3hr_datasets.errors import ConfigError, StatisticsError
from d3hr_datasets.numerics.sums import ordered_mean, ordered_sum, squared_norm
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.privacy.accounting import epsilon_of, spent_rho
from d3hr_datasets.privacy.discrete_gaussian import SystemBits, noisy
from d3hr_datasets.privacy.settings import whole_bounds

LEAST_VARIANCE = 0.01  # times the spread
DIGITS = 4  # of a share


@dataclass(frozen=True)
class NoisySums:
    """Sums of each class with noise; one image changes what they were made of by the bounds alone.

    Args:
        count: (K,) int64; may be negative.
        sums: (K, C, H, W) float64, of clipped latents.
        squares: (K, C, H, W) float64, of their squares less the spread.
    """

    count: torch.Tensor
    sums: torch.Tensor
    squares: torch.Tensor


@neutral()
def add_noise(
    sums: LatentSums, privacy: Privacy, source: Random | None = None, progress: bool = False
) -> NoisySums:
    """Add noise to the sums of clipped latents, of one timestep and without modes.

    Args:
        sums: Exact.
        privacy: How much noise.
        source: Of random bits: the system's by default. Any other is for tests, and keeps no promise.
        progress: Show a progress bar on stderr: numbers get their noise one after another.

    Raises:
        ConfigError: The noise that `privacy` names is less than its promise takes.
        StatisticsError: A class has too many images for whole numbers of 64 bits.
    """
    source = SystemBits() if source is None else source
    ((total, squares),) = [(sums.sums[time].sum(dim=1), sums.squares[time]) for time in sums.sums]
    check_promise(privacy, total[0].numel())
    count = sums.count.sum(dim=1)
    if int(count.max()) * privacy.spread > MAX_ENERGY:
        raise StatisticsError(
            f"a class has {int(count.max()):,} images, more than whole numbers of 64 bits have room for: at "
            f"most {int(MAX_ENERGY / privacy.spread):,} here; build of fewer"
        )
    centred = squares - count.view(-1, 1, 1, 1) * round(privacy.spread / SQUARE_UNIT)
    parts = (
        (count, privacy.noise_count, 1.0),
        (total, privacy.noise_sums, UNIT),
        (centred, privacy.noise_squares, SQUARE_UNIT),
    )
    numbers = sum(values.numel() for values, _, _ in parts)
    with tqdm(total=numbers, desc="adding noise", unit=" numbers", disable=not progress) as progress_bar:
        drawn = [noisy(part, _whole(scale, unit), source, progress_bar.update) for part, scale, unit in parts]
    # In two steps: whole numbers times a number of Python are float32.
    return NoisySums(drawn[0], drawn[1].double() * UNIT, drawn[2].double() * SQUARE_UNIT)


def check_promise(privacy: Privacy, num_elements: int) -> None:
    """Check by the accountant that noise keeps a promise, for latents of so many elements.

    Raises:
        ConfigError: It does not.
        MissingExtraError: dp-accounting is not installed.
    """
    bounds = whole_bounds(privacy.clip_norm, privacy.clip_squares, num_elements)
    found = epsilon_of(spent_rho(privacy, bounds), privacy.delta)
    if not found <= privacy.epsilon or privacy.clip_squares < math.sqrt(num_elements) * privacy.spread:
        raise ConfigError(
            f"the noise of privacy is that of epsilon={found:g}, and {privacy.epsilon:g} is promised; make "
            "it by PrivacySettings, for latents of this size"
        )


@neutral()
def estimate(noised: NoisySums, privacy: Privacy, draw: bool) -> tuple[ClassGaussians, tuple[float, ...]]:
    """Return class Gaussians of noisy sums.

    A count is at least two, a mean no longer than a clipped latent can be, a variance above zero and no more
    than the square of one of its elements. The noise in a mean adds its variance to the mean's square, which
    is taken off; what is left of it errs by that of e^2 + 2 m e for noise e in a mean m.

    Source of the shares: as `build.shrinkage`, with the variance of the noise, which is known, added to that
    of the estimate.

    Args:
        noised: Sums.
        privacy: What noise is in them.
        draw: Draw means and variances towards what all classes share, and that towards one number for all
            elements, each by the share that errs least.

    Returns:
        Gaussians in float64, and by which share the variances of each class were drawn; none if not.
    """
    count = noised.count.clamp(min=2)
    number = count.double().view(-1, 1, 1, 1)
    of_mean, of_square = (
        (scale / count.double()).square() for scale in (privacy.noise_sums, privacy.noise_squares)
    )
    mean, square = noised.sums / number, noised.squares / number + privacy.spread
    variance = square - mean.square() + of_mean.view(number.shape)
    shares: tuple[float, ...] = ()
    if draw:
        sampled = 1 / count.double()
        length = (squared_norm(mean, 3) / mean[0].numel() - of_mean).clamp(min=0)  # squared, an element
        of_variance = of_square + 2 * of_mean.square() + 4 * length * of_mean
        mean, _ = _drawn(mean, of_mean + privacy.spread * sampled)
        variance, shares = _drawn(variance, of_variance + 2 * privacy.spread**2 * sampled)
    norm = squared_norm(mean, 3).sqrt().clamp(min=1e-150)
    mean = mean * (privacy.clip_norm / norm).clamp(max=1.0).view(number.shape)
    variance = variance.clamp(LEAST_VARIANCE * privacy.spread, privacy.spread + privacy.clip_squares)
    return ClassGaussians(mean, variance, count), shares if any(shares) else ()


def _drawn(values: torch.Tensor, error: torch.Tensor) -> tuple[torch.Tensor, tuple[float, ...]]:
    """Draw (K, C, H, W) towards what classes share; `error` (K,) is the variance of each element's error."""
    weight = 1 / error
    total = ordered_sum(weight, 0)
    shared = ordered_sum(values * (weight / total).view(-1, 1, 1, 1), 0)[None]
    level = ordered_mean(shared.flatten(), 0).expand_as(shared)
    shared, _ = _towards(shared, level, (1 / total)[None])
    return _towards(values, shared, error)


def _towards(
    values: torch.Tensor, target: torch.Tensor, error: torch.Tensor
) -> tuple[torch.Tensor, tuple[float, ...]]:
    distance = squared_norm(values - target, 3) / values[0].numel()
    share = (error / distance.clamp(min=1e-300)).clamp(max=1.0)
    shares = [round(one, DIGITS) for one in share.tolist()]
    kept = 1 - torch.tensor(shares, dtype=torch.float64).view(-1, 1, 1, 1)
    return target + kept * (values - target), tuple(shares)


def _whole(scale: float, unit: float) -> int:
    return max(1, math.ceil(scale / unit))
