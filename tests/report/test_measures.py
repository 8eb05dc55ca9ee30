"""The measures of a report, against those of scipy."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from d3hr_datasets.report.inversion import measure_noise
from d3hr_datasets.report.measures import distance_to_stored, normality, standardised_quantiles


def test_normality_is_scipys() -> None:
    latents = torch.randn(50, 2, 3, 3, generator=torch.Generator().manual_seed(0)).exp()
    latents[:, 0, 0, 0] = 1.0  # an element that does not vary
    values = latents.flatten(1).double()[:, 1:].numpy()
    found = normality(latents)
    assert found["skewness"] == pytest.approx(abs(stats.skew(values)).mean())
    assert found["excess_kurtosis"] == pytest.approx(abs(stats.kurtosis(values)).mean())
    matrix = torch.corrcoef(torch.from_numpy(values).T)
    between = matrix[~torch.eye(17, dtype=torch.bool)]
    assert found["correlation"] == pytest.approx(float(between.abs().mean()))
    same = latents[:, :1, :1, 1:2].expand(-1, 2, 1, 1)
    assert normality(same)["correlation"] == pytest.approx(1)


def test_quantiles_of_gaussian_latents_are_normal() -> None:
    latents = 5 + 3 * torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    probabilities = torch.tensor([0.025, 0.25, 0.5, 0.975], dtype=torch.float64)
    found = standardised_quantiles(latents, probabilities)
    torch.testing.assert_close(found, torch.special.ndtri(probabilities), atol=0.02, rtol=0)


def test_noise_is_of_as_many_samples_as_each_class_has_images() -> None:
    probabilities = torch.tensor([0.1, 0.9], dtype=torch.float64)
    two, fifty, both, twice = (
        measure_noise(counts, (2, 3, 3), probabilities) for counts in ([2], [50], [2, 50], [50, 50])
    )
    assert two[0]["skewness"] < 1e-6  # two samples lie symmetrically
    assert fifty[0]["skewness"] > 0.1
    assert both[0]["skewness"] == pytest.approx((two[0]["skewness"] + fifty[0]["skewness"]) / 2)
    torch.testing.assert_close(both[1], (two[1] + fifty[1]) / 2)
    assert twice[0] == pytest.approx(fifty[0])


def test_distance_is_in_standard_errors() -> None:
    mean, variance = torch.full((1, 2, 2), 3.0), torch.full((1, 2, 2), 4.0)
    latents = torch.full((100, 1, 2, 2), 3.6)
    assert distance_to_stored(latents, mean, variance) == pytest.approx(3)  # 0.6 / (2 / 10)
