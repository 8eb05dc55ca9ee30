"""The mechanism: bounds on what an image changes, exact noise, and an accountant that says what it keeps."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from random import Random

import pytest
import torch
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant

from d3hr_datasets.artifact.latent_sums import MAX_SUM
from d3hr_datasets.artifact.privacy import MAX_NOISE, Privacy, advantage_bound
from d3hr_datasets.artifact.units import SQUARE_UNIT, UNIT
from d3hr_datasets.build.exact_moments import ExactMoments
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.privacy import PrivacySettings
from d3hr_datasets.privacy.accounting import epsilon_of, largest_rho, spent_rho
from d3hr_datasets.privacy.clipping import clip_latents
from d3hr_datasets.privacy.discrete_gaussian import SystemBits, discrete_gaussian, noisy
from d3hr_datasets.privacy.release import check_promise
from d3hr_datasets.privacy.settings import privacy_settings, whole_bounds

SHAPE = (3, 4, 4)
SIZE = 48


def _nasty(spread: float) -> torch.Tensor:
    """Return latents that look for the bounds: zeros, single elements, all alike, long, short, random."""
    one = torch.zeros(SIZE)
    one[7] = 1.0
    rows = [one * size for size in (0.0, 1e-30, 0.3, 1.0, 3.0, 1e6, -1e20)]
    rows += [torch.full((SIZE,), size) for size in (1e-3, spread**0.5, 2.0, -50.0)]
    generator = torch.Generator().manual_seed(0)
    rows += [
        size * torch.randn(SIZE, generator=generator) for size in (0.1, 0.9, 1.0, 1.0, 1.0, 1.3, 9.0, 1e4)
    ]
    return torch.stack(rows).view(-1, *SHAPE)


@pytest.mark.parametrize("spread", [1.0, 0.52])
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 2.0, "clip_squares": 40.0}, {"clip_norm": 99.0}])
def test_an_image_changes_whole_sums_by_no_more_than_the_bounds(
    spread: float, clip: dict[str, float]
) -> None:
    privacy = PrivacySettings(3.0, 1e-5, **clip).mechanism(SIZE, spread)
    bounds = whole_bounds(privacy.clip_norm, privacy.clip_squares, SIZE)
    latents = _nasty(spread)
    clipped = clip_latents(latents, privacy)
    for number, latent in enumerate(clipped):
        moments = ExactMoments(1, SHAPE)
        moments.update(latent[None], torch.tensor([0]))
        squares = moments.squares[0] - round(privacy.spread / SQUARE_UNIT)
        norms = [math.sqrt(sum(int(x) ** 2 for x in part.flatten())) for part in (moments.sums[0], squares)]
        assert all(norm <= bound for norm, bound in zip(norms, bounds, strict=False)), number
        # No more than needed is taken away, and the direction stays.
        whole = norms[0] > bounds[0] * (1 - 1e-6) or norms[1] > bounds[1] * (1 - 1e-6)
        assert whole or torch.equal(latent, latents[number].double())
        torch.testing.assert_close(latent / latent.norm().clamp(min=1e-40), _unit(latents[number]))
    assert torch.equal(clip_latents(latents[5:9], privacy), clipped[5:9])  # by the image alone


def _unit(latent: torch.Tensor) -> torch.Tensor:
    scaled: torch.Tensor = latent.double() / latent.double().norm().clamp(min=1e-40)
    return scaled


def test_what_is_not_finite_stays_so() -> None:
    privacy = PrivacySettings(3.0, 1e-5).mechanism(SIZE, 1.0)
    for value in (math.nan, math.inf, -math.inf):
        latents = torch.zeros(1, *SHAPE)
        latents[0, 0, 0, 0] = value
        assert not clip_latents(latents, privacy).isfinite().all()


@pytest.mark.parametrize("scale", [1, 2, 5])
def test_noise_has_the_law_of_the_discrete_gaussian(scale: int) -> None:
    number, source = 6000, Random(1)
    found = Counter(discrete_gaussian(scale, source) for _ in range(number))
    weights = {x: math.exp(-(x**2) / (2 * scale**2)) for x in range(-12 * scale, 12 * scale + 1)}
    total = sum(weights.values())
    assert set(found) <= set(weights)
    for x, weight in weights.items():
        share = weight / total
        assert abs(found[x] / number - share) < 5 * math.sqrt(share * (1 - share) / number) + 2 / number, x


def test_noise_of_large_scale_is_whole_and_wide() -> None:
    scale, zeros = 2**41 + 1, torch.zeros(2, 1000, dtype=torch.int64)
    found = noisy(zeros, scale, Random(2))
    assert found.dtype == torch.int64 and found.shape == zeros.shape
    relative = found.double().flatten() / scale
    assert abs(float(relative.mean())) < 0.1 and abs(float(relative.std()) - 1) < 0.1
    assert 0.63 < float((relative.abs() < 1).double().mean()) < 0.73
    assert len(set((found.flatten() % 1024).tolist())) > 500  # also the last bits are noise


def test_the_most_noise_that_is_accepted_does_not_wrap() -> None:
    most = torch.full((5000,), MAX_SUM)
    advanced: list[int] = []
    found = noisy(most, MAX_NOISE, Random(4), advanced.append)
    assert advanced == [4096, 904] and (most == MAX_SUM).all()
    relative = (found - most).double() / MAX_NOISE
    assert float(relative.abs().max()) < 6 and abs(float(relative.std()) - 1) < 0.05
    assert int(found.min()) > 0


def test_bits_of_the_system_come_from_no_seed() -> None:
    one, other = SystemBits(), SystemBits()
    one.seed(0)
    other.seed(0)
    assert [one.getrandbits(64) for _ in range(9)] != [other.getrandbits(64) for _ in range(9)]
    many = [one.randrange(6) for _ in range(6000)]
    assert set(many) == set(range(6)) and all(850 < many.count(face) < 1150 for face in range(6))
    assert one.getrandbits(0) == 0 and 0 <= one.getrandbits(9000) < 2**9000


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-6), (1.0, 1e-5), (3.0, 1e-5), (10.0, 1e-3)])
def test_another_accountant_finds_no_more_spent(epsilon: float, delta: float) -> None:
    rho = largest_rho(epsilon, delta)
    assert epsilon_of(rho, delta) <= epsilon < epsilon_of(1.01 * rho, delta)
    exact = PLDAccountant()
    exact.compose(GaussianDpEvent(1 / math.sqrt(2 * rho)))
    assert 0.8 * epsilon < exact.get_epsilon(delta) <= epsilon


def test_the_noise_of_a_mechanism_keeps_what_is_promised() -> None:
    made = {epsilon: PrivacySettings(epsilon, 1e-5).mechanism(SIZE, 1.0) for epsilon in (1.0, 3.0)}
    for epsilon, privacy in made.items():
        bounds = whole_bounds(privacy.clip_norm, privacy.clip_squares, SIZE)
        # The three parts together, by another accountant, which knows of none of this module's sums.
        noise = (privacy.noise_sums / UNIT, privacy.noise_squares / SQUARE_UNIT, privacy.noise_count)
        three = PLDAccountant()
        for bound, scale in zip(bounds, noise, strict=True):
            three.compose(GaussianDpEvent(scale / bound))
        assert 0.8 * epsilon < three.get_epsilon(1e-5) <= epsilon
        assert spent_rho(privacy, bounds) <= largest_rho(epsilon, 1e-5)
        check_promise(privacy, SIZE)
        assert Privacy.from_dict(privacy.to_dict()) == privacy
    assert made[1.0].noise_sums > 2 * made[3.0].noise_sums
    with pytest.raises(ConfigError, match="and 1 is promised"):
        check_promise(dataclasses.replace(made[3.0], epsilon=1.0), SIZE)
    with pytest.raises(ConfigError, match="for latents of this size"):
        check_promise(dataclasses.replace(made[3.0], clip_norm=9.0), SIZE)
    assert made[3.0].noise_sums % UNIT == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epsilon": 0.0, "delta": 1e-5}, "epsilon must be above 0"),
        ({"epsilon": -1, "delta": 1e-5}, "epsilon must be at least 0"),
        ({"epsilon": math.nan, "delta": 1e-5}, "epsilon must be a finite number"),
        ({"epsilon": 1001, "delta": 1e-5}, "at most 1000"),
        ({"epsilon": 1, "delta": 0}, "delta must be above 0"),
        ({"epsilon": 1, "delta": 1.0}, "delta must be above 0 and below 1"),
        ({"epsilon": True, "delta": 1e-5}, "epsilon must be a finite number"),
        ({"epsilon": 1, "delta": 1e-5, "clip_norm": 0}, "clip_norm must be above 0"),
        ({"epsilon": 1, "delta": 1e-5, "clip_squares": 6.0}, "clip_squares=6 is less than 6.9"),
        ({"epsilon": 1e-9, "delta": 1e-30}, "finds no noise"),
        ({"epsilon": 1, "delta": 1e-5, "clip_norm": 1e300}, r"at most 1e\+12, not 1e\+300"),
        ({"epsilon": 1, "delta": 1e-5, "clip_squares": 1e300}, r"at most 1e\+12, not 1e\+300"),
        ({"epsilon": 1, "delta": 1e-5, "clip_norm": 1e8}, "hold, 33,554,432; give a smaller clip_norm"),
        ({"epsilon": 1, "delta": 1e-5, "clip_squares": 1e6}, "hold, 2,097,152; give a smaller clip_squares"),
    ],
)
def test_budgets_that_are_none_are_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PrivacySettings(**values).mechanism(SIZE, 1.0)


def test_strong_promises_are_kept_too() -> None:
    rho = largest_rho(0.01, 1e-9)
    assert 0.009 < epsilon_of(rho, 1e-9) <= 0.01


def test_a_size_or_a_spread_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_elements"):
        PrivacySettings(1.0, 1e-6).mechanism(0, 1.0)
    with pytest.raises(ConfigError, match="spread"):
        PrivacySettings(1.0, 1e-6).mechanism(SIZE, math.nan)


def test_a_budget_has_two_numbers() -> None:
    assert privacy_settings(None, None) is None
    assert privacy_settings(1.0, 1e-6) == PrivacySettings(1.0, 1e-6)
    for half in ((1.0, None), (None, 1e-6)):
        with pytest.raises(ConfigError, match="give both"):
            privacy_settings(*half)


def test_the_bound_of_an_attack() -> None:
    assert advantage_bound(1.0, 0.0) == pytest.approx((math.e - 1) / (math.e + 1))
    assert advantage_bound(1.0, 0.1) == pytest.approx((math.e - 1 + 0.2) / (math.e + 1))
    assert advantage_bound(1e-9, 1e-9) < 1e-8 and advantage_bound(900.0, 0.5) == 1.0
