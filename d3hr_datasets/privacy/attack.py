"""An attack on membership: how well it can be told that an image is behind the statistics of its class.

In: inverted latents of one class. Many builds of random halves of them are made; each is only sums. For every
latent, a likelihood ratio is fitted on some builds with it and without it, and tried on others.

Source: Carlini et al. (2022), "Membership inference attacks from first principles" (LiRA). In place of a
loss, the released sums are projected on what the image would add to them, as seen through the other images
and the noise: for Gaussians, no other number tells more (Fisher's discriminant).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
import torch

from d3hr_datasets.artifact.latent_sums import LatentSums
from d3hr_datasets.artifact.privacy import Privacy, advantage_bound
from d3hr_datasets.config.checks import check_choice, check_int
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.privacy.clipping import clip_latents
from d3hr_datasets.privacy.discrete_gaussian import SystemBits
from d3hr_datasets.privacy.release import add_noise

FEWEST_BUILDS = 64
RIDGE = 1e-9  # so that there is a direction, however few latents there are
Others = Literal["unknown", "known"]


@dataclass(frozen=True)
class AttackResult:
    """What an attack found out.

    Args:
        advantage: True positive rate less false positive rate, at the best threshold: 0 is guessing, 1 is
            knowing.
        error: What the best threshold finds in as many guesses that know nothing, in 19 of 20 cases; guesses
            of one build share its noise, so it is a little more.
        bound: What no attack exceeds, by the budget; 1 without one.
        num_in: Guesses about latents that were in a build.
        num_out: Guesses about latents that were not.
    """

    advantage: float
    error: float
    bound: float
    num_in: int
    num_out: int


@neutral()
def membership_advantage(
    latents: torch.Tensor,
    privacy: Privacy | None,
    *,
    others: Others = "unknown",
    num_shadows: int = FEWEST_BUILDS,
    num_tests: int = FEWEST_BUILDS,
    seed: int = 0,
    source: Random | None = None,
) -> AttackResult:
    """Attack statistics of latents of one class. What an artifact publishes is computed of these sums.

    Args:
        latents: (N, C, H, W); each build has a random half of them.
        privacy: The mechanism; None for exact sums of latents as they are.
        others: Whether the attacker, who knows all these latents, also knows which other ones are in a build;
            that is the most anybody can know. Without privacy the advantage is then 1 by construction, and
            no measurement: exact sums less the others are the latent itself.
        num_shadows: Builds that the likelihood ratios are fitted on, at least 64.
        num_tests: Builds that they are tried on, at least 64.
        seed: Which latents are in which build.
        source: Of the bits of the noise; the system's by default.

    Raises:
        ConfigError: There are fewer than four latents or they are not finite, a number is out of range, or
            `privacy` is no mechanism.
    """
    check_choice("others", others, Others)
    for name, number in (("num_shadows", num_shadows), ("num_tests", num_tests)):
        check_int(name, number, FEWEST_BUILDS)
    _check(latents, privacy, seed)
    inside = memberships(num_shadows + num_tests, len(latents), seed)
    scores = _scores(latents, privacy, inside, others, SystemBits() if source is None else source)
    shadows, tests = slice(None, num_shadows), slice(num_shadows, None)
    ratios = _log_ratios(scores[shadows], inside[shadows], scores[tests])
    found_in, found_out = ratios[inside[tests]], ratios[~inside[tests]]
    bound = 1.0 if privacy is None else advantage_bound(privacy.epsilon, privacy.delta)
    error = 1.36 * math.sqrt(1 / len(found_in) + 1 / len(found_out))  # of Kolmogorov and Smirnov
    return AttackResult(_best(found_in, found_out), error, bound, len(found_in), len(found_out))


def _check(latents: torch.Tensor, privacy: Privacy | None, seed: int) -> None:
    if latents.dim() != 4 or len(latents) < 4:
        raise ConfigError(
            f"latents of shape {tuple(latents.shape)} are given; accepted: (N, C, H, W), four or more of "
            "one class"
        )
    if not latents.double().square().isfinite().all():
        raise ConfigError(
            "latents, or their squares, are not finite, and nothing could be found out of them; leave out "
            "what could not be inverted"
        )
    if privacy is not None and not isinstance(privacy, Privacy):
        raise ConfigError(
            f"privacy must be a mechanism or None, not {type(privacy).__name__}; give "
            "PrivacySettings(...).mechanism(num_elements, spread), or `artifact.info.privacy`"
        )
    check_int("seed", seed, 0, 2**63 - 1)


@neutral()
def memberships(num_builds: int, number: int, seed: int) -> np.ndarray:
    """Return which latents are in which build, (builds, N) bool: of each latent's builds half have it.

    Of shadows and of tests taken alone it is about half, and never none or all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    half = [
        torch.stack([torch.randperm(size, generator=generator) for _ in range(number)], 1).numpy() % 2 == 0
        for size in (num_builds // 2, num_builds - num_builds // 2)
    ]
    return np.concatenate(half)


def _scores(
    latents: torch.Tensor, privacy: Privacy | None, inside: np.ndarray, others: Others, source: Random
) -> np.ndarray:
    """Return how far the release of each build lies in the direction of each latent, (builds, N)."""
    size = latents[0].numel()
    if privacy is None:
        flat = latents.double().reshape(len(latents), -1).numpy()
        added = np.concatenate([flat, flat**2, np.ones((len(flat), 1))], 1)
        noise, variance = np.zeros((len(inside), 2 * size + 1)), np.zeros(2 * size + 1)
    else:
        flat = clip_latents(latents, privacy).reshape(len(latents), -1).numpy()
        added = np.concatenate([flat, flat**2 - privacy.spread, np.ones((len(flat), 1))], 1)
        noise = np.stack([_release_noise(tuple(latents.shape[1:]), privacy, source) for _ in inside])
        scales = (privacy.noise_sums, privacy.noise_squares, privacy.noise_count)
        variance = np.repeat(np.square(scales), (size, size, 1))
    if others == "known":  # what they add is taken off; without noise the latent itself is left, or nothing
        weight = np.ones_like(variance) if privacy is None else 1 / variance
        return inside * ((added**2) @ weight) + noise @ (added * weight).T
    # Releases spread by which latents are in, added.T @ added / 4, and by noise. That is a matrix of latents'
    # elements; by Woodbury's identity one of as many rows as there are latents is solved instead.
    trace = np.square(added).sum() / 4 + variance.sum()
    diagonal = variance + RIDGE * trace / len(variance)
    scaled = added / diagonal
    small = scaled @ added.T / 4 + np.eye(len(added))
    return np.asarray(((inside - 0.5) @ added + noise) @ np.linalg.solve(small, scaled).T)


def _release_noise(shape: tuple[int, ...], privacy: Privacy, source: Random) -> np.ndarray:
    """Return the noise of one release of one class, by the mechanism itself: sums, squares, count."""
    count, sums, squares = (torch.zeros(1, *size, dtype=torch.int64) for size in ((1,), (1, *shape), shape))
    noised = add_noise(LatentSums(count, {0: sums}, {0: squares}), privacy, source)
    parts = (noised.sums, noised.squares, noised.count)
    return np.concatenate([part.double().flatten().numpy() for part in parts])


def _log_ratios(shadows: np.ndarray, inside: np.ndarray, tests: np.ndarray) -> np.ndarray:
    """Return by Gaussians fitted on shadows how much likelier each score is of a build with the latent."""
    within, without = (np.where(where, shadows, np.nan) for where in (inside, ~inside))
    means = [np.nanmean(values, 0) for values in (within, without)]
    least = 1e-6 * np.abs(means[0] - means[1]) + 1e-12
    spreads = [np.maximum(np.nanstd(values, 0, ddof=1), least) for values in (within, without)]
    likely = [
        -np.square((tests - mean) / spread) / 2 - np.log(spread)
        for mean, spread in zip(means, spreads, strict=True)
    ]
    return np.asarray(likely[0] - likely[1])


def _best(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the largest true less false positive rate over all thresholds."""
    thresholds = np.unique(np.concatenate([inside, outside]))
    rates = [1 - np.searchsorted(np.sort(found), thresholds) / len(found) for found in (inside, outside)]
    return float(max(0.0, (rates[0] - rates[1]).max()))
