"""How close a set of images is to another in a feature space."""

from __future__ import annotations

import torch


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the squared Fréchet distance of the Gaussians fitted to two sets of features (N, D).

    Source: FID (Heusel et al., 2017), with any features: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).
    """
    first, second = first.double(), second.double()
    covariances = first.T.cov(), second.T.cov()
    # tr (S1 S2)^(1/2) is the sum of the roots of the eigenvalues of S1 S2, which are not negative.
    eigenvalues = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0)
    means = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    return float(means + covariances[0].trace() + covariances[1].trace() - 2 * eigenvalues.sqrt().sum())


def _radii(features: torch.Tensor, k: int) -> torch.Tensor:
    return torch.cdist(features, features).kthvalue(k + 1, dim=1).values  # the nearest is the point itself


def recall_and_coverage(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> tuple[float, float]:
    """Return recall and coverage of `fake` (M, D) with respect to `real` (N, D).

    Recall: share of real points inside the k-nearest-neighbour ball of a fake point. Coverage: share of
    real points whose own ball holds a fake point.

    Source: Kynkäänniemi et al. (2019); Naeem et al. (2020), eq. 9.
    """
    distances = torch.cdist(real, fake)
    recall = (distances <= _radii(fake, k)[None]).any(dim=1).float().mean().item()
    coverage = (distances.min(dim=1).values <= _radii(real, k)).float().mean().item()
    return recall, coverage
