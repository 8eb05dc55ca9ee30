"""What is asked of privacy, and what it takes: a budget and the size of a latent -> bounds and noise.

In: epsilon and delta. Out: a `Privacy`, which names all that the mechanism needs. Nothing here knows images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from d3hr_datasets.artifact.privacy import COARSEST, Privacy, check_budget
from d3hr_datasets.artifact.units import SQUARE_UNIT, UNIT
from d3hr_datasets.config.checks import check_int, check_number
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.privacy.accounting import accountant_name, largest_rho

# How much of the budget, as rho, goes to sums, squares and counts. A count is one number that scales a mean,
# so little is enough for it.
SHARES = (0.63, 0.32, 0.05)


@dataclass(frozen=True)
class PrivacySettings:
    """A budget of privacy: statistics change little, whoever's image is added or removed.

    Args:
        epsilon: How much the odds of anything may change, as exp(epsilon). 1 is strong, 10 is weak.
        delta: With what probability they may change more; choose far less than one in the number of images.
        clip_norm: Largest norm of an inverted latent: longer ones are scaled down. By default that of a
            latent whose images are of unit variance, sqrt(D * spread). A number that was chosen by looking
            at the private images is no longer covered.
        clip_squares: The same of the squares of its elements, less their expected value; by default that of
            a Gaussian latent, sqrt(2 D) * spread.

    Raises:
        ConfigError: A value is not accepted.
    """

    epsilon: float
    delta: float
    clip_norm: float | None = None
    clip_squares: float | None = None

    def __post_init__(self) -> None:
        check_budget(self.epsilon, self.delta)
        for name in ("clip_norm", "clip_squares"):
            value = getattr(self, name)
            if value is not None and not 0 < check_number(name, value, 0.0) <= COARSEST:
                raise ConfigError(
                    f"{name} must be above 0, as with 0 nothing of the images is left, and at most "
                    f"{COARSEST:g}, not {value!r}"
                )

    def mechanism(self, num_elements: int, spread: float) -> Privacy:
        """Return bounds and noise for latents of so many elements, D, of this expected variance.

        Raises:
            ConfigError: `clip_squares` is so small that no latent fits.
            MissingExtraError: dp-accounting is not installed.
        """
        check_int("num_elements", num_elements, 1)
        check_number("spread", spread, 0.0)
        least = math.sqrt(num_elements) * spread
        norm = math.sqrt(num_elements * spread) if self.clip_norm is None else float(self.clip_norm)
        squares = math.sqrt(2) * least if self.clip_squares is None else float(self.clip_squares)
        if squares < least:
            raise ConfigError(
                f"clip_squares={squares:g} is less than {least:g}, that of a latent of zeros; give more, or "
                "leave it out"
            )
        rho = largest_rho(self.epsilon, self.delta)
        # Whole numbers of the unit, rounded up: so much noise or more.
        of_sums, of_squares, of_count = (
            math.ceil(bound / math.sqrt(2 * share * rho))
            for bound, share in zip(whole_bounds(norm, squares, num_elements), SHARES, strict=True)
        )
        return Privacy(
            epsilon=self.epsilon,
            delta=self.delta,
            clip_norm=norm,
            clip_squares=squares,
            spread=spread,
            noise_sums=of_sums * UNIT,
            noise_squares=of_squares * SQUARE_UNIT,
            noise_count=float(of_count),
            accountant=accountant_name(),
        )


def privacy_settings(epsilon: float | None, delta: float | None) -> PrivacySettings | None:
    """Return a budget, None where none is given.

    Raises:
        ConfigError: One of the two is missing.
    """
    if epsilon is None and delta is None:
        return None
    if epsilon is None or delta is None:
        raise ConfigError(
            f"epsilon={epsilon} goes with delta={delta}, and both with privacy alone: give both, such as "
            "epsilon=3 and delta=1e-6, or neither"
        )
    return PrivacySettings(epsilon, delta)


def whole_bounds(clip_norm: float, clip_squares: float, num_elements: int) -> tuple[int, int, int]:
    """Return how much one image changes sums, squares and counts at most, as norms in whole units.

    An element is rounded to its unit, and so is the spread; two units an element make up for both, and for
    the last bit of norms in float64.
    """
    slack = 2 * math.sqrt(num_elements)
    return math.ceil(clip_norm / UNIT + slack), math.ceil(clip_squares / SQUARE_UNIT + slack), 1
