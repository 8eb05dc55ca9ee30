"""Sums of inverted latents in whole numbers: the same in any order, and to be taken away again.

In: latents. Out: integers, in units of 2^-32 of latents and 2^-36 of their squares, and the class Gaussians
and modes that they stand for. A latent and its square are rounded once, to about what float32 has of them;
from then on nothing is. So sums of parts are those of the whole, to the last bit, however images were split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from d3hr_datasets.artifact.gaussians import ClassGaussians, ClassModes, check_class_counts, check_mode_counts
from d3hr_datasets.artifact.units import SQUARE_UNIT, UNIT
from d3hr_datasets.errors import StatisticsError
from d3hr_datasets.numerics.sums import ordered_sum
from d3hr_datasets.numerics.torch_settings import neutral

MAX_SQUARES = 2**62 - 1  # so that two sums can be added
MAX_ENERGY = MAX_SQUARES * SQUARE_UNIT  # the same of latents: 67 million images of unit variance
MAX_COUNT, MAX_SUM = 2**34, 2**62  # which go with such squares


@neutral()
def in_units(values: torch.Tensor, unit: float) -> torch.Tensor:
    """Return numbers as int64 in units, rounded to the nearest."""
    return (values.double() / unit).round().to(torch.int64)


@dataclass(frozen=True)
class LatentSums:
    """Count, sum and sum of squares of the inverted latents of every class, all int64.

    Args:
        count: (K, M), images behind each of the M modes of each class; M = 1 where there are none.
        sums: By time, (K, M, C, H, W), in `UNIT`: a class's own sum is that of its modes.
        squares: By time, (K, C, H, W), of whole classes, in `SQUARE_UNIT`.

    Raises:
        StatisticsError: Shapes or types are others, or no latents have such sums.
    """

    count: torch.Tensor
    sums: Mapping[float, torch.Tensor]
    squares: Mapping[float, torch.Tensor]

    def __post_init__(self) -> None:
        classes, modes = self.count.shape
        for time, sums in self.sums.items():
            squares = self.squares.get(time, torch.zeros(0))
            expected = (classes, modes, *squares.shape[1:])
            if squares.shape[:1] != (classes,) or tuple(sums.shape) != expected:
                raise StatisticsError(
                    f"sums at {time} are {tuple(sums.shape)} and squares {tuple(squares.shape)}; accepted "
                    f"for {classes} classes of {modes} modes: (K, M, C, H, W) and (K, C, H, W)"
                )
            if {sums.dtype, squares.dtype, self.count.dtype} != {torch.int64}:
                raise StatisticsError(f"sums at {time} are no integers of 64 bits; build them again")
            self._check_possible(time)

    @neutral()
    def _check_possible(self, time: float) -> None:
        """Check that latents can have these sums, and that computing with them overflows nowhere."""
        count, sums, squares = self.count, self.sums[time], self.squares[time]
        bounded = (
            bool(((count >= 0) & (count <= MAX_COUNT)).all())
            and bool((sums.abs() <= MAX_SUM).all())
            and bool(((squares >= 0) & (squares <= MAX_SQUARES)).all())
        )
        lacking = least_squares(sums, count) - squares.double()
        slack = 1e-9 * squares.double() + 4.0 * _beside(count.sum(dim=1), squares)
        if not bounded or bool((sums * (_beside(count, sums) == 0)).any()) or bool((lacking > slack).any()):
            raise StatisticsError(
                f"no latents have such sums as these at {time}: a count, a sum or a sum of squares is out of "
                "range, or squares are less than sums ask for; the sums are damaged: build them again"
            )

    @property
    def num_modes(self) -> int:
        """Modes of each class, M."""
        return self.count.shape[1]

    @neutral()
    def gaussians(self) -> dict[float, ClassGaussians]:
        """Return the class Gaussians by time, in float64, with the unbiased variance.

        Raises:
            StatisticsError: A class has fewer than two images.
        """
        count = self.count.sum(dim=1)
        check_class_counts(count)
        found = {}
        for time, sums in self.sums.items():
            total, squares = sums.sum(dim=1), self.squares[time]
            freedom = _beside(count, total) - 1
            deviations = _deviations(squares, total[:, None], count[:, None])
            mean = _means(total, count)
            found[time] = ClassGaussians(mean, deviations / freedom, count.clone())
        return found

    def statistics(self) -> tuple[dict[float, ClassGaussians], dict[float, ClassModes]]:
        """Return the class Gaussians, and the modes where there are any; errors as of the two."""
        return self.gaussians(), self.modes() if self.num_modes > 1 else {}

    @neutral()
    def modes(self) -> dict[float, ClassModes]:
        """Return the modes of every class by time, in float64.

        Raises:
            StatisticsError: A mode has no image, or a class no more images than modes.
        """
        check_mode_counts(self.count)
        divisor = self.count.sum(dim=1) - self.num_modes
        found = {}
        for time, sums in self.sums.items():
            deviations = _deviations(self.squares[time], sums, self.count)
            variance = deviations / _beside(divisor, deviations)
            found[time] = ClassModes(_means(sums, self.count), variance, self.count.clone())
        return found


@neutral()
def least_squares(sums: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return the least sums of squares that go with sums (K, M, C, H, W) and counts (K, M).

    Returns:
        (K, C, H, W) float64, whole numbers of `SQUARE_UNIT`.
    """
    return (_squares_of_means(sums, count) / SQUARE_UNIT).ceil()


def _means(sums: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return the means of sums, in float64."""
    return sums.double() * UNIT / _beside(count, sums).clamp(min=1)


def _squares_of_means(sums: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return count x mean^2, added up over modes, in float64."""
    return ordered_sum(sums.double() * UNIT * _means(sums, count), 1)


def _deviations(squares: torch.Tensor, sums: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return the sum of squared deviations from the means of modes, (K, C, H, W) float64.

    In float64 this is off by 1e-16 of the squares; it is the same for the same sums, whatever they are of.
    """
    return (squares.double() * SQUARE_UNIT - _squares_of_means(sums, count)).clamp(min=0)


def _beside(count: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return counts with as many dimensions as `values` has, to go with its first ones."""
    return count.view(*count.shape, *[1] * (values.dim() - count.dim()))
