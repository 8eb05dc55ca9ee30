"""Subsets of real images, for baselines: features -> the positions of the images kept.

In: features (N, D) of all images and their labels. Out: positions, class by class. The same features give the
same positions for any number of threads; of several that are as good, the first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.numerics.sums import ordered_mean, squared_norm
from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def herding(features: torch.Tensor, number: int) -> torch.Tensor:
    """Return the `number` positions whose mean follows the mean of all features (N, D), greedily.

    Source: Welling (2009), as iCaRL uses it.
    """
    features = features.double()
    mean = ordered_mean(features, 0)
    chosen: list[int] = []
    total = torch.zeros_like(mean)
    free = torch.ones(len(features), dtype=torch.bool)
    for count in range(1, number + 1):
        distances = squared_norm((total + features) / count - mean, 1)
        distances[~free] = torch.inf
        best = int(distances.argmin())
        chosen.append(best)
        free[best] = False
        total += features[best]
    return torch.tensor(chosen)


@neutral()
def k_center(features: torch.Tensor, number: int) -> torch.Tensor:
    """Return `number` positions that cover all features (N, D): greedily the one farthest from the chosen.

    Source: Sener & Savarese (2018). The first is the one nearest to the mean.
    """
    features = features.double()
    best = int(squared_norm(features - ordered_mean(features, 0), 1).argmin())
    chosen = [best]
    distances = squared_norm(features - features[best], 1)
    while len(chosen) < number:
        best = int(distances.argmax())
        chosen.append(best)
        distances = distances.minimum(squared_norm(features - features[best], 1))
    return torch.tensor(chosen)


@neutral()
def medoids(features: torch.Tensor, number: int) -> torch.Tensor:
    """Return `number` positions, of each cluster of k-means in features (N, D) the one nearest to its centre.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        ConfigError: Fewer features differ than are asked for.
    """
    with needs_extra("train", "medoids are found with scikit-learn"):
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    features = features.double()
    if (differ := len(features.unique(dim=0))) < number:
        raise ConfigError(f"only {differ} images differ, and {number} are asked for; lower ipc")
    with threadpool_limits(1):  # more add up in any order
        found = KMeans(number, random_state=0, n_init=3).fit(features.numpy())
    chosen = []
    for cluster, centre in enumerate(torch.from_numpy(found.cluster_centers_)):
        members = torch.from_numpy(found.labels_ == cluster).nonzero().flatten()
        chosen.append(members[squared_norm(features[members] - centre, 1).argmin()])
    return torch.stack(chosen)


# Ways to choose real images in the features of a teacher.
BY_FEATURES = {"herding": herding, "k_center": k_center, "medoids": medoids}


@neutral()
def random_per_class(labels: torch.Tensor, ipc: int, seed: int) -> torch.Tensor:
    """Return `ipc` random positions of every class, class by class.

    Raises:
        ConfigError: A class has fewer images.
    """
    generator = torch.Generator().manual_seed(seed)

    def choose(members: torch.Tensor, number: int) -> torch.Tensor:
        return torch.randperm(len(members), generator=generator)[:number]

    return select_per_class(choose, labels, labels, ipc)


@neutral()
def select_per_class(
    method: Callable[[torch.Tensor, int], torch.Tensor],
    features: torch.Tensor,
    labels: torch.Tensor,
    ipc: int,
) -> torch.Tensor:
    """Return `ipc` positions of every class, class by class.

    Raises:
        ConfigError: A class has fewer images.
    """
    parts = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        if len(members) < ipc:
            raise ConfigError(f"class {int(label)} has {len(members)} images, not {ipc}; lower ipc")
        parts.append(members[method(features[members], ipc)])
    return torch.cat(parts)
