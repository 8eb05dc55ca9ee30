"""To what precision the means of an artifact were asked for, where its build stopped when they were known.

The standard error of a mean is the standard deviation of its images over the square root of their number;
its share is that over the spread of the class. Without modes it is 1 / sqrt(images), whatever the images are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from d3hr_datasets.config.checks import check_int, check_number
from d3hr_datasets.config.json_settings import JsonSettings, without_defaults
from d3hr_datasets.errors import ConfigError

LEAST = 1e-4  # of a hundred million images of a class
SHOWN = 5  # classes


@dataclass(frozen=True)
class Tolerance(JsonSettings):
    """What the build was asked for, and how far it came; `build.early_stop` defines the standard error.

    Args:
        share: Largest standard error of a mean, as a share of the spread of its class: 0.0001 to less than 1.
        num_images: Images that there were to choose from; `ArtifactInfo.counts` says how many were used.
        not_reached: Class labels, ascending, of which all images were used and did not suffice.
    """

    share: float
    num_images: int
    not_reached: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", check_share(self.share, "tolerance.share"))
        check_int("tolerance.num_images", self.num_images, 1)
        if not isinstance(self.not_reached, tuple):
            raise ConfigError(f"tolerance.not_reached must be a list, not {self.not_reached!r:.80}")
        for label in self.not_reached:
            check_int("tolerance.not_reached", label, 0)
        if list(self.not_reached) != sorted(set(self.not_reached)):
            raise ConfigError("tolerance.not_reached must be class labels, ascending, each once")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return without_defaults(super().to_dict(), not_reached=[])

    def check_fits(self, num_classes: int, counts: Sequence[int]) -> None:
        """Raise `ConfigError` unless it can be that of an artifact of so many classes and images."""
        if any(label >= num_classes for label in self.not_reached):
            raise ConfigError(f"tolerance.not_reached must be class labels 0 to {num_classes - 1}")
        if sum(counts) > self.num_images:
            raise ConfigError(
                f"tolerance.num_images is {self.num_images}, and counts say that {sum(counts)} were used"
            )


def check_share(value: Any, name: str = "tolerance") -> float:
    """Return a share of a class's spread if it is one.

    Raises:
        ConfigError: It is not.
    """
    share = check_number(name, value, 0.0)
    if not LEAST <= share < 1:
        raise ConfigError(
            f"{name} must be a share of the spread of a class, from {LEAST:g} to less than 1, such as 0.03, "
            f"which is 3 %; not {value!r:.80}"
        )
    return share


def least_images(share: float) -> int:
    """Return how many images of a class its mean takes at least: 1 / share^2, rounded up."""
    return math.ceil(1 / share**2 - 1e-6)  # 1 / 0.02 ** 2 is no whole number in float64


def describe_tolerance(tolerance: Tolerance, used: int, classes: Sequence[str]) -> str:
    """Return in words what a build was asked for, and what became of it.

    Args:
        tolerance: What the artifact says of it.
        used: Images behind the artifact.
        classes: Names by class label.
    """
    text = (
        f"{used:,} of {tolerance.num_images:,} images were used, chosen at random: of each class until the "
        f"standard error of its means was at most {100 * tolerance.share:g} % of its spread"
    )
    if not tolerance.not_reached:
        return text
    shown = ", ".join(classes[label] for label in tolerance.not_reached[:SHOWN])
    more = ", ..." if len(tolerance.not_reached) > SHOWN else ""
    return (
        f"{text}; all images of {len(tolerance.not_reached):,} of {len(classes):,} classes did not suffice "
        f"({shown}{more})"
    )
