"""The attack on membership: what it finds out without privacy, and that the bound holds with it."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.privacy import PrivacySettings, attack, membership_advantage
from d3hr_datasets.privacy.accounting import largest_rho
from d3hr_datasets.privacy.attack import Others, memberships
from d3hr_datasets.privacy.clipping import clip_latents

CLASSES = 3
PER_CLASS = 24
# Latents of three tiny classes around means of their own.
LATENTS = torch.randn(CLASSES, PER_CLASS, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LATENTS = 0.8 * LATENTS + 0.3 * torch.arange(CLASSES).view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("label", range(CLASSES))
def test_without_privacy_members_of_small_classes_are_found(label: int) -> None:
    found = membership_advantage(LATENTS[label], None)
    assert (found.bound, found.num_in, found.num_out) == (1.0, 64 * PER_CLASS // 2, 64 * PER_CLASS // 2)
    assert found.advantage > 0.9 and found.error < 0.1
    known = membership_advantage(LATENTS[label], None, others="known")
    assert known.advantage == 1.0  # by construction


@pytest.mark.parametrize("others", ["unknown", "known"])
@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_with_privacy_the_bound_holds(epsilon: float, others: Others) -> None:
    privacy = PrivacySettings(epsilon, 1e-5).mechanism(48, 1.0)
    for label in range(CLASSES):
        found = membership_advantage(LATENTS[label], privacy, others=others, source=Random(label))
        assert found.bound == pytest.approx((math.exp(epsilon) - 1 + 2e-5) / (math.exp(epsilon) + 1))
        assert found.advantage <= found.bound + found.error
        # No more than any test of one Gaussian finds, which knows all the others: what less noise lets out.
        mu = math.sqrt(2 * largest_rho(epsilon, 1e-5))
        assert found.advantage <= math.erf(mu / math.sqrt(8)) + found.error


def test_the_attack_sees_what_a_weak_promise_lets_through() -> None:
    """So that the bound does not hold because the attack is blind."""
    privacy = PrivacySettings(30.0, 1e-5).mechanism(48, 1.0)
    found = membership_advantage(LATENTS[0], privacy, others="known", source=Random(0))
    assert 0.7 < found.advantage <= 1.0


def test_latents_of_a_class_that_is_nothing_but_noise_tell_nothing() -> None:
    """Latents that add next to nothing: guesses are guesses, and the error says so."""
    found = membership_advantage(
        1e-9 * LATENTS[0],
        PrivacySettings(0.01, 1e-6).mechanism(48, 1.0),
        source=Random(3),
    )
    assert found.advantage <= found.bound + found.error


@pytest.mark.parametrize("epsilon", [None, 1.0])
def test_scores_are_those_of_the_whole_matrix_of_spreads(epsilon: float | None) -> None:
    """The attack solves a system of as many rows as there are latents; this one solves that of elements."""
    latents, size = LATENTS[0], 48
    privacy = None if epsilon is None else PrivacySettings(epsilon, 1e-5).mechanism(size, 1.0)
    inside = memberships(64, PER_CLASS, 0)
    found = attack._scores(latents, privacy, inside, "unknown", Random(1))
    flat, variance = latents.double().reshape(PER_CLASS, -1).numpy(), np.zeros(2 * size + 1)
    noise: Any = 0.0
    if privacy is not None:
        flat = clip_latents(latents, privacy).reshape(PER_CLASS, -1).numpy()
        source = Random(1)
        noise = np.stack([attack._release_noise((3, 4, 4), privacy, source) for _ in inside])
        scales = (privacy.noise_sums, privacy.noise_squares, privacy.noise_count)
        variance = np.repeat(np.square(scales), (size, size, 1))
    squares = flat**2 - (0.0 if privacy is None else privacy.spread)
    added = np.concatenate([flat, squares, np.ones((PER_CLASS, 1))], 1)
    spread = added.T @ added / 4 + np.diag(variance)
    spread += attack.RIDGE * spread.trace() / len(spread) * np.eye(len(spread))
    expected = ((inside - 0.5) @ added + noise) @ np.linalg.solve(spread, added.T)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_every_latent_is_in_half_of_the_builds_by_chance() -> None:
    inside = memberships(128, 10, 0)
    assert (
        inside.shape == (128, 10) and inside[:64].sum(0).tolist() == inside[64:].sum(0).tolist() == [32] * 10
    )
    assert len({tuple(row) for row in inside.tolist()}) > 100
    assert (inside == memberships(128, 10, 0)).all() and (inside != memberships(128, 10, 1)).any()


@pytest.mark.parametrize(
    ("latents", "privacy", "seed", "said"),
    [
        (LATENTS[0].clone().index_fill_(0, torch.tensor(0), math.nan), None, 0, "are not finite"),
        (LATENTS[0].clone().index_fill_(0, torch.tensor(0), math.inf), None, 0, "are not finite"),
        (1e200 * LATENTS[0].double(), None, 0, "or their squares, are not finite"),
        (LATENTS[0].flatten(1), None, 0, r"shape \(24, 48\)"),
        (LATENTS[0], PrivacySettings(1.0, 1e-5), 0, "must be a mechanism or None, not PrivacySettings"),
        (LATENTS[0], None, -1, "seed"),
        (LATENTS[0], None, 2**64, "seed"),
    ],
)
def test_what_cannot_be_attacked_is_refused(latents: Any, privacy: Any, seed: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        membership_advantage(latents, privacy, seed=seed)


def test_few_builds_and_few_latents_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_shadows must be at least 64"):
        membership_advantage(LATENTS[0], None, num_shadows=63)
    with pytest.raises(ConfigError, match="num_tests must be at least 64"):
        membership_advantage(LATENTS[0], None, num_tests=8)
    with pytest.raises(ConfigError, match="four or more of one class"):
        membership_advantage(LATENTS[0, :3], None)
