"""The spread of difficulty: features and a teacher's losses -> features that tell easy from hard images.

In: features of the candidates of one class, and of what they should stand for, with the losses of both. Out:
the same with one coordinate more. An order of these has easy and hard images as often as its target has.
"""

from __future__ import annotations

import torch

from d3hr_datasets.curation.ordering import median_distance
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def add_difficulty(
    features: torch.Tensor,
    losses: torch.Tensor,
    spread: float,
    *,
    target: torch.Tensor | None = None,
    target_losses: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the features of candidates and of their target with the difficulty of each image in them.

    The coordinate is the share of the target that is easier for the teacher, from 0 to 1, times `spread`
    times the median distance within the target: at 1, an image that the teacher finds easiest is as far from
    the hardest as two images of the class usually are from each other.

    Args:
        features: (N, D) of the candidates.
        losses: (N,), the teacher's.
        spread: How much difficulty counts beside the features; 0 leaves them as they are.
        target: (M, D); the candidates themselves by default.
        target_losses: (M,), with `target`.

    Raises:
        ConfigError: Shapes do not fit, or losses are not finite.
    """
    if spread == 0:
        return features, target
    own = _checked(losses, features)
    points, known = (features, own) if target is None else (target, _checked(target_losses, target))
    scale = spread * median_distance(points)
    widened = _with(features, scale * _shares(own, known))
    return widened, None if target is None else _with(target, scale * _shares(known, known))


def _checked(losses: torch.Tensor | None, images: torch.Tensor) -> torch.Tensor:
    if losses is None or tuple(losses.shape) != (len(images),) or not losses.isfinite().all():
        raise ConfigError(f"losses must be one finite number for each of {len(images)} images")
    return losses


def _shares(values: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Return the share of `among` below each of `values`, equal ones counted half."""
    ordered = among.double().sort().values
    wanted = values.double().contiguous()
    below = torch.searchsorted(ordered, wanted) + torch.searchsorted(ordered, wanted, right=True)
    return below / (2 * len(ordered))


def _with(features: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    return torch.cat([features.double(), column[:, None]], dim=1)
