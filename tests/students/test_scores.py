"""Mean and spread, LRS and ARS."""

from __future__ import annotations

import math

import pytest

from d3hr_datasets.students.scores import augmentation_robust_score, label_robust_score, mean_std


def test_scores() -> None:
    assert mean_std([1.0, 3.0]) == (2.0, math.sqrt(2))
    assert mean_std([1.0]) == (1.0, None)
    # No gap to real images and nothing gained over random ones: e^0.
    neutral = (1 - math.exp(-1)) / (math.e - math.exp(-1))
    assert label_robust_score(0.9, 0.7, 0.9, 0.7) == pytest.approx(neutral)
    assert augmentation_robust_score(0.7, 0.7, 0.5, 0.5) == pytest.approx(neutral)
    # 0.5 * (0.8 - 0.7) - 0.5 * (0.9 - 0.6) = -0.1
    assert label_robust_score(0.9, 0.7, 0.6, 0.8) == pytest.approx(
        (math.exp(-0.1) - math.exp(-1)) / (math.e - math.exp(-1))
    )
    # 0.5 * 0.1 + 0.5 * 0.3 = 0.2
    assert augmentation_robust_score(0.8, 0.7, 0.6, 0.3) == pytest.approx(
        (math.exp(0.2) - math.exp(-1)) / (math.e - math.exp(-1))
    )
    with pytest.raises(ValueError, match="divide percentages by 100"):
        label_robust_score(90, 70, 60, 80)
