"""The modes of a class: points -> centroids, and the nearest one of any image.

Modes are sought in VAE space, where they are far apart; their statistics are then those of the inverted
latents, as for the classes.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.numerics.sums import squared_norm
from d3hr_datasets.numerics.torch_settings import neutral

CELL_ROUNDS = 3  # of k-means, whose cells need not have converged to stand for the points in them


@neutral()
def find_centroids(
    points: torch.Tensor, weights: torch.Tensor, num_modes: int, seed: int = 0
) -> torch.Tensor:
    """Return the centroids of k-means with weights, found in one thread: more add up in any order.

    Args:
        points: (P, D), at least `num_modes`.
        weights: (P,), the images behind each.
        num_modes: Centroids, M.
        seed: Of the first centroids.

    Returns:
        (M, D) float32.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    fitted = _k_means(points.double(), num_modes, seed, weights.double())
    return torch.from_numpy(fitted.cluster_centers_).float()


@neutral()
def cells_of_points(
    points: torch.Tensor, weights: torch.Tensor, num_cells: int, seed: int = 0
) -> torch.Tensor:
    """Return which of at most `num_cells` cells each of some points is in: points of a cell are near.

    Args:
        points: (P, D) float32.
        weights: (P,).
        num_cells: Fewer than points.
        seed: Of the first centres, which are points drawn at random.

    Returns:
        (P,) int64.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    how = {"init": "random", "n_init": 1, "max_iter": CELL_ROUNDS}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Number of distinct clusters")  # images may be there twice
        fitted = _k_means(points, num_cells, seed, weights.to(points.dtype), **how)
    return torch.from_numpy(fitted.labels_).to(torch.int64)


@neutral()
def join_points(points: torch.Tensor, weights: torch.Tensor, num_modes: int, seed: int = 0) -> torch.Tensor:
    """Return which of `num_modes` clusters each of some points is in, by k-means with weights.

    Args:
        points: (P, D), at least `num_modes` that differ.
        weights: (P,), such as the images behind each.
        num_modes: Clusters.
        seed: Of the first centroids.

    Returns:
        (P,) int64.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    fitted = _k_means(points.double(), num_modes, seed, weights.double())
    return torch.from_numpy(fitted.labels_).to(torch.int64)


def _k_means(points: torch.Tensor, number: int, seed: int, weights: torch.Tensor, **how: Any) -> Any:
    """Return what scikit-learn finds in points (P, D) with weights (P,), in one thread."""
    with needs_extra("build", "modes are found with scikit-learn"):
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    with threadpool_limits(1):
        k_means = KMeans(number, random_state=seed, **{"n_init": 3, **how})
        return k_means.fit(points.numpy(), sample_weight=weights.numpy())


@neutral()
def nearest_mode(latents: torch.Tensor, class_labels: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Return the mode (B,) of latents (B, C, H, W): the nearest centroid of the own class, or the first."""
    dims, modes = latents.dim() - 1, range(centroids.shape[1])
    distances = [squared_norm(latents - centroids[class_labels, mode], dims) for mode in modes]
    return torch.stack(distances, dim=1).argmin(dim=1)
