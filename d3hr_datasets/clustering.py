"""The modes of a class: VAE latents of some images -> centroids, and the nearest one of any image.

Modes are sought in VAE space, where they are far apart; their statistics are then those of the inverted
latents, as for the classes.
"""

from __future__ import annotations

import torch

from d3hr_datasets.ambient import neutral
from d3hr_datasets.errors import ConfigError, StatisticsError
from d3hr_datasets.sums import squared_norm


@neutral()
def fit_centroids(
    latents: torch.Tensor, class_labels: torch.Tensor, num_classes: int, num_modes: int, seed: int = 0
) -> torch.Tensor:
    """Return the centroids of k-means in every class, found in one thread: more add up in any order.

    Args:
        latents: (N, C, H, W).
        class_labels: (N,) int64 in 0..K-1.
        num_classes: K.
        num_modes: Centroids per class, M.
        seed: Of the first centroids.

    Returns:
        (K, M, C, H, W) float32.

    Raises:
        ConfigError: scikit-learn is not installed.
        StatisticsError: A class has fewer images than modes.
    """
    try:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ConfigError(
            "modes are found with scikit-learn, which is not installed: `pip install 'd3hr-datasets[build]'`"
        ) from error
    centroids = []
    for label in range(num_classes):
        members = latents[class_labels == label].flatten(1)
        if len(members) < num_modes:
            raise StatisticsError(
                f"class label {label} has {len(members)} images to find {num_modes} modes in; add images, or "
                "build with fewer modes (num_modes=1 stores none)"
            )
        with threadpool_limits(1):
            fitted = KMeans(num_modes, n_init=3, random_state=seed).fit(members.double().numpy())
        centroids.append(torch.from_numpy(fitted.cluster_centers_).float())
    return torch.stack(centroids).view(num_classes, num_modes, *latents.shape[1:])


@neutral()
def nearest_mode(latents: torch.Tensor, class_labels: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Return the mode (B,) of latents (B, C, H, W): the nearest centroid of the own class, or the first."""
    own = centroids[class_labels]
    distances = [squared_norm(latents - own[:, mode], latents.dim() - 1) for mode in range(own.shape[1])]
    return torch.stack(distances, dim=1).argmin(dim=1)
