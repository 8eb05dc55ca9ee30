"""Class Gaussians and modes: mean and variance of inverted latents, per class and latent element.

In: tensors, as `build.moments` sums them up or an artifact stores them. Out: the same, checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from d3hr_datasets.errors import StatisticsError
from d3hr_datasets.numerics.torch_settings import neutral


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


@dataclass(frozen=True)
class ClassModes:
    """The modes of every class over inverted latents: their means, and one variance within them.

    Args:
        mean: (K, M, C, H, W).
        variance: (K, C, H, W), within the modes, pooled over them; not negative.
        count: (K, M) int64, images behind each mode, at least one.

    Raises:
        StatisticsError: Shapes differ, or a value is not finite, or negative, or a count below one.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor

    def __post_init__(self) -> None:
        if (self.mean.shape[0], *self.mean.shape[2:]) != self.variance.shape or (
            self.count.shape != self.mean.shape[:2]
        ):
            raise StatisticsError(
                f"mean {tuple(self.mean.shape)}, variance {tuple(self.variance.shape)} and count "
                f"{tuple(self.count.shape)} must be (K, M, C, H, W), (K, C, H, W) and (K, M)"
            )
        for name, tensor in (("mean", self.mean), ("variance", self.variance)):
            bad = (~tensor.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
            if bad:
                raise StatisticsError(
                    f"the {name} of the modes of class labels {bad[:10]} has values that are not finite (NaN "
                    "or inf); the statistics are damaged or overflowed: build them again in float32"
                )
        if (self.variance < 0).any() or (self.count < 1).any():
            raise StatisticsError(
                "modes have a negative variance or no image; the statistics are damaged: build them again"
            )

    def __len__(self) -> int:
        return len(self.count)


@neutral()
def check_class_counts(count: torch.Tensor) -> None:
    """Raise `StatisticsError` unless every class has two images, which a variance takes; `count` is (K,)."""
    few = (count < 2).nonzero().flatten().tolist()
    if few:
        raise StatisticsError(
            f"class labels {few[:10]}{' ...' if len(few) > 10 else ''} have fewer than two images, "
            "so no variance; add images, or leave those classes out"
        )


@neutral()
def check_mode_counts(count: torch.Tensor) -> None:
    """Raise `StatisticsError` unless modes have images, and classes more images than modes; (K, M)."""
    num_modes = count.shape[1]
    few = ((count < 1).any(dim=1) | (count.sum(dim=1) <= num_modes)).nonzero().flatten().tolist()
    if few:
        raise StatisticsError(
            f"class labels {few[:10]}{' ...' if len(few) > 10 else ''} have too few images for "
            f"{num_modes} modes; add images, or build with fewer modes"
        )
