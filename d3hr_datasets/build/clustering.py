"""The modes of a class: VAE latents of some images -> centroids, and the nearest one of any image.

Modes are sought in VAE space, where they are far apart; their statistics are then those of the inverted
latents, as for the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.build.chunks import (
    load_tensors,
    save_tensors,
)
from d3hr_datasets.build.reading_ahead import halve_on_out_of_memory, read_ahead
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import StatisticsError, UnreadableImageError
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.numerics.sums import squared_norm
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.records import Images


def find_centroids(
    path: Path,
    images: Images,
    chosen: Sequence[int],
    model: LatentDiffusion,
    info: ArtifactInfo,
    batch_size: int,
    num_readers: int,
    skip_unreadable: bool,
) -> torch.Tensor:
    """Find the centroids in some of the images, or read those an earlier run found in the same.

    Arguments as of `ChunkBuilder`; `images` have random access, and the numbers of some are `chosen`. Keeps
    their latents in memory.
    """
    identity = images.identity_of(chosen)
    loaded = load_tensors(path)
    if loaded is not None and loaded[1].get("identity") == identity:
        return loaded[0]["centroids"]

    def encode(batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        latents, labels = [], []
        with ThreadPoolExecutor(num_readers) as pool:
            records = [next(images.records(0, index)) for index in chosen]
            for batch in read_ahead(pool, records, batch_size, info):
                items = []
                for _, future in batch:
                    try:
                        items.append(future.result())
                    except UnreadableImageError:
                        if not skip_unreadable:
                            raise
                if items:
                    latents.append(model.encode(torch.stack([image for image, _ in items])).cpu())
                    labels += [label for _, label in items]
        return torch.cat(latents), torch.tensor(labels)

    latents, labels = halve_on_out_of_memory(encode, batch_size)()
    centroids = fit_centroids(latents, labels, len(info.classes), info.num_modes)
    save_tensors(path, {"centroids": centroids}, {"identity": identity})
    return centroids


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
        MissingExtraError: scikit-learn is not installed.
        StatisticsError: A class has fewer images than modes.
    """
    centroids = []
    for label in range(num_classes):
        members = latents[class_labels == label].flatten(1)
        if len(members) < num_modes:
            raise StatisticsError(
                f"class label {label} has {len(members)} images to find {num_modes} modes in; add images, or "
                "build with fewer modes (num_modes=1 stores none)"
            )
        fitted = _k_means(members.double(), num_modes, seed)
        centroids.append(torch.from_numpy(fitted.cluster_centers_).float())
    return torch.stack(centroids).view(num_classes, num_modes, *latents.shape[1:])


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
    fitted = _k_means(points.double(), num_modes, seed, weights.double().numpy())
    return torch.from_numpy(fitted.labels_).to(torch.int64)


def _k_means(points: torch.Tensor, num_modes: int, seed: int, weights: Any = None) -> Any:
    """Return what scikit-learn finds in points (N, D), in one thread."""
    with needs_extra("build", "modes are found with scikit-learn"):
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    with threadpool_limits(1):
        return KMeans(num_modes, n_init=3, random_state=seed).fit(points.numpy(), sample_weight=weights)


@neutral()
def nearest_mode(latents: torch.Tensor, class_labels: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Return the mode (B,) of latents (B, C, H, W): the nearest centroid of the own class, or the first."""
    own = centroids[class_labels]
    distances = [squared_norm(latents - own[:, mode], latents.dim() - 1) for mode in range(own.shape[1])]
    return torch.stack(distances, dim=1).argmin(dim=1)
