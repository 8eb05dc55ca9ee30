"""Scores of distilled sets: accuracies of students -> mean and spread, and DD-Ranking's LRS and ARS.

Accuracies are fractions in [0, 1].
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from d3hr_datasets.errors import ConfigError


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation, None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def label_robust_score(
    real_hard: float, random_any: float, distilled_hard: float, distilled_any: float, weight: float = 0.5
) -> float:
    """Return the LRS: how much of an accuracy is due to the images and not to the labels, in [0, 1].

    Source: DD-Ranking (arXiv 2505.13300).

    Differs from reference: on fractions, as the paper has it; the public code exponentiates percentages.

    Args:
        real_hard: Accuracy after training on the whole real set with hard labels.
        random_any: On as many random real images, with the method's labels.
        distilled_hard: On the distilled images, with hard labels.
        distilled_any: On the distilled images, with the method's labels.
        weight: Of the improvement over random, against the hard-label gap.
    """
    _check_fractions(real_hard, random_any, distilled_hard, distilled_any)
    improvement, gap = distilled_any - random_any, real_hard - distilled_hard
    return _normalized(weight * improvement - (1 - weight) * gap)


def augmentation_robust_score(
    distilled_augmented: float,
    random_augmented: float,
    distilled_plain: float,
    random_plain: float,
    weight: float = 0.5,
) -> float:
    """Return the ARS: how much of an improvement over random images is left without augmentation, in [0, 1].

    Source: DD-Ranking (arXiv 2505.13300). Differs from reference as `label_robust_score` does.

    Args:
        distilled_augmented: Accuracy on the distilled images, with augmentation.
        random_augmented: On as many random real images, with augmentation.
        distilled_plain: On the distilled images, without.
        random_plain: On as many random real images, without.
        weight: Of the improvement with augmentation.
    """
    _check_fractions(distilled_augmented, random_augmented, distilled_plain, random_plain)
    augmented, plain = distilled_augmented - random_augmented, distilled_plain - random_plain
    return _normalized(weight * augmented + (1 - weight) * plain)


def _normalized(value: float) -> float:
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))


def _check_fractions(*values: float) -> None:
    if not all(0 <= value <= 1 for value in values):
        raise ConfigError(f"accuracies must be fractions in [0, 1], not {values}; divide percentages by 100")
