"""Moments of latents that are added up batch by batch: means and squares by class -> Gaussians and modes."""

from __future__ import annotations

import torch

from d3hr_datasets.artifact.gaussians import ClassGaussians, ClassModes, check_class_counts, check_mode_counts
from d3hr_datasets.errors import StatisticsError
from d3hr_datasets.numerics.sums import ordered_mean, ordered_sum
from d3hr_datasets.numerics.torch_settings import neutral


class RunningMoments:
    """Count, mean and sum of squared deviations per class, in float64 and in bounded memory.

    Two of them merge, so that work can be split between processes and resumed. The same batches in the same
    order give the same bits, for any number of threads.

    Source: Chan, Golub and LeVeque (1983), pairwise update of mean and sum of squares.
    Differs from reference: it accumulates in fp16 and stacks all latents.

    Args:
        num_classes: Number of classes K.
        shape: Shape of one latent, (C, H, W).
    """

    PARTS = ("count", "mean", "squares")

    @neutral()
    def __init__(self, num_classes: int, shape: tuple[int, ...]) -> None:
        self.count = torch.zeros(num_classes, dtype=torch.int64)
        self.mean = torch.zeros(num_classes, *shape, dtype=torch.float64)
        self.squares = torch.zeros(num_classes, *shape, dtype=torch.float64)

    @neutral()
    def update(self, latents: torch.Tensor, class_labels: torch.Tensor) -> None:
        """Add a batch.

        Args:
            latents: (B, C, H, W), any float type and device.
            class_labels: (B,) int64 in 0..K-1.

        Raises:
            StatisticsError: A latent is not finite. Nothing of the batch was added then.
        """
        latents = finite_latents(latents, class_labels)
        labels = class_labels.cpu()
        rows = labels.unique()
        batch = RunningMoments(len(rows), tuple(self.mean.shape[1:]))
        for row, label in enumerate(rows.tolist()):
            members = latents[labels == label]
            batch.count[row] = len(members)
            batch.mean[row] = ordered_mean(members, 0)
            batch.squares[row] = ordered_sum((members - batch.mean[row]).square(), 0)
        self.merge(batch, rows)

    @neutral()
    def merge(self, other: RunningMoments, rows: torch.Tensor | None = None) -> None:
        """Add all that `other` has seen.

        Args:
            other: Its rows are those of `rows`, or the same as here.
            rows: (R,) int64, distinct: where each row of `other` belongs.
        """
        here: torch.Tensor | slice = slice(None) if rows is None else rows
        count, mean = self.count[here], self.mean[here]
        total = count + other.count
        share = torch.where(total > 0, other.count.double() / total.clamp(min=1), 0.0)
        share = share.view(-1, *[1] * (mean.dim() - 1))
        delta = other.mean - mean
        weight = count.view(share.shape).to(torch.float64) * share
        self.squares[here] += other.squares + delta.square() * weight
        self.mean[here] += delta * share
        self.count[here] = total

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the three tensors, to be saved."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    @classmethod
    def from_state_dict(cls, state: dict[str, torch.Tensor]) -> RunningMoments:
        """Return what `state_dict` saved."""
        moments = cls(len(state["count"]), tuple(state["mean"].shape[1:]))
        moments.count, moments.mean, moments.squares = state["count"], state["mean"], state["squares"]
        return moments

    def deviations(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return counts (R,), means and sums of squared deviations (R, C, H, W) of some rows, in float64."""
        return self.count[rows], self.mean[rows], self.squares[rows]

    @neutral()
    def grouped(self, size: int) -> RunningMoments:
        """Return the moments of every `size` successive rows taken together."""
        shape = self.mean.shape[1:]
        total = RunningMoments(len(self.count) // size, tuple(shape))
        for row in range(size):
            part = RunningMoments(len(total.count), tuple(shape))
            part.count, part.mean, part.squares = (
                tensor[row::size].clone() for tensor in (self.count, self.mean, self.squares)
            )
            total.merge(part)
        return total

    @neutral()
    def modes(self, num_modes: int) -> ClassModes:
        """Return the modes of every class, of which row `class label x num_modes + mode` is one.

        Raises:
            StatisticsError: A mode has no image, or a class no more images than modes.
        """
        count = self.count.view(-1, num_modes)
        check_mode_counts(count)
        shape = self.mean.shape[1:]
        squares = ordered_sum(self.squares.view(-1, num_modes, *shape), 1)
        divisor = (count.sum(dim=1) - num_modes).view(-1, *[1] * len(shape))
        return ClassModes(self.mean.view(-1, num_modes, *shape).clone(), squares / divisor, count.clone())

    @neutral()
    def gaussians(self) -> ClassGaussians:
        """Return the Gaussians, with the unbiased variance (divided by count - 1).

        Raises:
            StatisticsError: A class has fewer than two images.
        """
        check_class_counts(self.count)
        divisor = (self.count - 1).view(-1, *[1] * (self.mean.dim() - 1))
        return ClassGaussians(self.mean.clone(), self.squares / divisor, self.count.clone())


@neutral()
def finite_latents(latents: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
    """Return latents in float64 on the CPU.

    Raises:
        StatisticsError: One is not finite.
    """
    latents = latents.detach().cpu().double()  # in two steps: MPS has no float64
    finite = latents.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        index = int((~finite).nonzero()[0])
        raise StatisticsError(
            f"latent {index} of the batch (class label {int(class_labels[index])}) is not finite; "
            "invert in float32 instead of half precision"
        )
    return latents
