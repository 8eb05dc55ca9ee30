"""Class Gaussians: inverted latents -> mean and variance per class and latent element.

In: batches of inverted latents with class labels, in any split and order. Out: `ClassGaussians`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from d3hr_datasets.errors import StatisticsError


class RunningMoments:
    """Count, mean and sum of squared deviations per class, in float64 and in bounded memory.

    Two of them merge, so that work can be split between processes and resumed.

    Source: Chan, Golub and LeVeque (1983), pairwise update of mean and sum of squares.
    Differs from reference: it accumulates in fp16 and stacks all latents.

    Args:
        num_classes: Number of classes K.
        shape: Shape of one latent, (C, H, W).
    """

    def __init__(self, num_classes: int, shape: tuple[int, ...]) -> None:
        self.count = torch.zeros(num_classes, dtype=torch.int64)
        self.mean = torch.zeros(num_classes, *shape, dtype=torch.float64)
        self.squares = torch.zeros(num_classes, *shape, dtype=torch.float64)

    def update(self, latents: torch.Tensor, class_labels: torch.Tensor) -> None:
        """Add a batch.

        Args:
            latents: (B, C, H, W), any float type and device.
            class_labels: (B,) int64 in 0..K-1.

        Raises:
            StatisticsError: A latent is not finite. Nothing of the batch was added then.
        """
        latents = latents.detach().to("cpu", torch.float64)
        finite = latents.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            index = int((~finite).nonzero()[0])
            raise StatisticsError(
                f"latent {index} of the batch (class label {int(class_labels[index])}) is not finite; "
                "invert in float32 instead of half precision"
            )
        batch = RunningMoments(len(self.count), tuple(self.mean.shape[1:]))
        for label in class_labels.unique().tolist():
            members = latents[class_labels.cpu() == label]
            batch.count[label] = len(members)
            batch.mean[label] = members.mean(dim=0)
            batch.squares[label] = (members - batch.mean[label]).square().sum(dim=0)
        self.merge(batch)

    def merge(self, other: RunningMoments) -> None:
        """Add all that `other` has seen."""
        total = self.count + other.count
        share = torch.where(total > 0, other.count.double() / total.clamp(min=1), 0.0)
        share = share.view(-1, *[1] * (self.mean.dim() - 1))
        delta = other.mean - self.mean
        weight = self.count.view(share.shape).to(torch.float64) * share
        self.squares += other.squares + delta.square() * weight
        self.mean += delta * share
        self.count = total

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the three tensors, to be saved."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    @classmethod
    def from_state_dict(cls, state: dict[str, torch.Tensor]) -> RunningMoments:
        """Return what `state_dict` saved."""
        moments = cls(len(state["count"]), tuple(state["mean"].shape[1:]))
        moments.count, moments.mean, moments.squares = state["count"], state["mean"], state["squares"]
        return moments

    def gaussians(self) -> ClassGaussians:
        """Return the Gaussians, with the unbiased variance (divided by count - 1).

        Raises:
            StatisticsError: A class has fewer than two images.
        """
        few = (self.count < 2).nonzero().flatten().tolist()
        if few:
            raise StatisticsError(
                f"class labels {few[:10]}{' ...' if len(few) > 10 else ''} have fewer than two images, "
                "so no variance; add images, or leave those classes out"
            )
        divisor = (self.count - 1).view(-1, *[1] * (self.mean.dim() - 1))
        return ClassGaussians(self.mean.clone(), self.squares / divisor, self.count.clone())


@dataclass(frozen=True)
class ClassGaussians:
    """One diagonal Gaussian per class over inverted latents.

    Args:
        mean: (K, C, H, W).
        variance: (K, C, H, W), not negative.
        count: (K,) int64, images behind each class, at least two.

    Raises:
        StatisticsError: Shapes differ, or a value is not finite, or negative, or a count below two.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor

    def __post_init__(self) -> None:
        if self.mean.shape != self.variance.shape or self.count.shape != self.mean.shape[:1]:
            raise StatisticsError(
                f"mean {tuple(self.mean.shape)}, variance {tuple(self.variance.shape)} and count "
                f"{tuple(self.count.shape)} must be (K, C, H, W), the same, and (K,)"
            )
        for name, tensor in (("mean", self.mean), ("variance", self.variance)):
            bad = (~tensor.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
            if bad:
                raise StatisticsError(
                    f"the {name} of class labels {bad[:10]} has values that are not finite (NaN or inf); "
                    "the statistics are damaged or overflowed: build them again in float32"
                )
        if (self.variance < 0).any():
            raise StatisticsError("a variance is negative; the statistics are damaged: build them again")
        if (self.count < 2).any():
            raise StatisticsError("a class has fewer than two images behind it, so no variance")

    def __len__(self) -> int:
        return len(self.count)
