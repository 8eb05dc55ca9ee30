"""Sums of latents that are added up batch by batch in whole numbers, the same for any batches in any order.

In: latents, and the row that each belongs to. Out: `LatentSums`. `moments.RunningMoments` is the same in
float64, where the last bit depends on the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from d3hr_datasets.artifact.latent_sums import MAX_ENERGY, MAX_SQUARES, LatentSums, in_units
from d3hr_datasets.artifact.units import SQUARE_UNIT, UNIT
from d3hr_datasets.build.moments import finite_latents
from d3hr_datasets.errors import StatisticsError
from d3hr_datasets.numerics.torch_settings import neutral


class ExactMoments:
    """Count, sum and sum of squares per row, in the units of `artifact.latent_sums`.

    Args:
        num_rows: Number of rows; row `class label x modes + mode` is a mode's.
        shape: Shape of one latent, (C, H, W).
    """

    PARTS = ("count", "sums", "squares")

    @neutral()
    def __init__(self, num_rows: int, shape: tuple[int, ...]) -> None:
        self.count = torch.zeros(num_rows, dtype=torch.int64)
        self.sums = torch.zeros(num_rows, *shape, dtype=torch.int64)
        self.squares = torch.zeros(num_rows, *shape, dtype=torch.int64)

    @neutral()
    def update(self, latents: torch.Tensor, class_labels: torch.Tensor) -> None:
        """Add a batch: latents (B, C, H, W) and the row (B,) of each.

        Raises:
            StatisticsError: A latent is not finite, or they are too large. Nothing of the batch was added
                then.
        """
        latents = finite_latents(latents, class_labels)
        if len(latents) and float(latents.square().sum(dim=0).max()) > MAX_ENERGY:
            raise StatisticsError(_too_large())
        rows, places = class_labels.cpu().unique(return_inverse=True)
        batch = ExactMoments(len(rows), tuple(self.sums.shape[1:]))
        batch.count.index_add_(0, places, torch.ones_like(places))
        batch.sums.index_add_(0, places, in_units(latents, UNIT))
        batch.squares.index_add_(0, places, in_units(latents.square(), SQUARE_UNIT))
        self.merge(batch, rows)

    @neutral()
    def merge(self, other: ExactMoments, rows: torch.Tensor | None = None) -> None:
        """Add all that `other` has seen; `rows` (R,), distinct, says where each of its rows belongs.

        Raises:
            StatisticsError: A sum of squares gets too large. Nothing was added then.
        """
        here: torch.Tensor | slice = slice(None) if rows is None else rows
        squares = self.squares[here] + other.squares
        if (squares > MAX_SQUARES).any():
            raise StatisticsError(_too_large())
        self.squares[here] = squares
        self.sums[here] += other.sums
        self.count[here] += other.count

    @neutral()
    def deviations(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return counts (R,), means and sums of squared deviations (R, C, H, W) of some rows, in float64."""
        count = self.count[rows].view(-1, *[1] * (self.sums.dim() - 1))
        means = self.sums[rows].double() * UNIT / count.clamp(min=1)
        squares = self.squares[rows].double() * SQUARE_UNIT - count * means.square()
        return self.count[rows], means, squares.clamp(min=0)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the three tensors, to be saved."""
        return {"count": self.count, "sums": self.sums, "squares": self.squares}

    @classmethod
    def from_state_dict(cls, state: dict[str, torch.Tensor]) -> ExactMoments:
        """Return what `state_dict` saved."""
        moments = cls(len(state["count"]), tuple(state["sums"].shape[1:]))
        moments.count, moments.sums, moments.squares = state["count"], state["sums"], state["squares"]
        return moments


@neutral()
def latent_sums(moments: Mapping[float, ExactMoments], num_modes: int) -> LatentSums:
    """Return the sums of every class, of which row `class label x num_modes + mode` is a mode.

    Raises:
        StatisticsError: A sum of squares gets too large.
    """
    count = next(iter(moments.values())).count.view(-1, num_modes)
    sums, squares = {}, {}
    for time, one in moments.items():
        shape = (len(count), num_modes, *one.sums.shape[1:])
        sums[time] = one.sums.view(shape)
        of_modes = one.squares.view(shape)
        if (of_modes.double().sum(dim=1) > MAX_SQUARES).any():
            raise StatisticsError(_too_large())
        squares[time] = of_modes.sum(dim=1)
    return LatentSums(count, sums, squares)


def check_room(counts: Sequence[int]) -> None:
    """Check that so many images of each class can be added up, before any is inverted.

    Raises:
        StatisticsError: Latents of unit variance, as inverted ones are, would get too large.
    """
    if max(counts, default=0) > MAX_ENERGY:
        raise StatisticsError(f"a class has {max(counts):,} images: {_too_large()}")


def _too_large() -> str:
    return (
        "the latents of a class are too large or too many for exact sums: their squares add up to more than "
        f"{MAX_ENERGY:,.0f}, as 67 million images of unit variance do; see whether images, guidance and "
        "model belong together. Build without moments; or, with privacy, which always takes exact sums, of "
        "fewer images"
    )
