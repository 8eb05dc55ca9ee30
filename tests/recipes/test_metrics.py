"""Distances of sets of features."""

from __future__ import annotations

import pytest
import torch

from recipes.evaluate.metrics import frechet_distance, recall_and_coverage


def test_frechet_distance_of_gaussians() -> None:
    features = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = 2 * features + torch.tensor([3.0, 0, 0])
    # Means differ by 3 and standard deviations by 1 in each of three dimensions: 9 + 3.
    assert frechet_distance(features, moved) == pytest.approx(12, rel=0.05)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def test_recall_and_coverage_see_a_missing_mode() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 2, generator=generator)
    real[100:] += 100
    fake = torch.randn(100, 2, generator=generator)
    recall, coverage = recall_and_coverage(real, fake)
    assert 0.35 < recall <= 0.5
    assert 0.35 < coverage <= 0.5
    assert recall_and_coverage(real, real) == (1, 1)
