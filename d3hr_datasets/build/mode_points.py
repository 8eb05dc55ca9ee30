"""The latents of a class in bounded memory: latents, any number of them -> weighted points -> centroids.

Most classes keep every latent. Where there are too many, near ones are joined to a point with their weight,
at their mean, and k-means of the points is nearly that of the latents.
"""

from __future__ import annotations

import torch

from d3hr_datasets.build.clustering import cells_of_points, find_centroids
from d3hr_datasets.numerics.torch_settings import neutral

# Points that stand for the latents of a class, for each of its modes: after some were joined, and before.
KEPT_PER_MODE = 40
HELD_PER_MODE = 2 * KEPT_PER_MODE


class ModePoints:
    """Points with weights that stand for the latents of one class.

    Never holds more than `capacity` points of D float32, and takes four times that besides, at most, while it
    clusters them. Two of them merge, so that work can be split. The same latents in the same order give the
    same bits, however they are cut into updates.

    Source: Guha, Meyerson, Mishra, Motwani and O'Callaghan (2003), "Clustering data streams": points are
    clustered whenever memory is full, and their weighted centroids go on. Lloyd's iterations make the
    clusters here.

    Args:
        num_modes: Modes that are sought, M.
        size: Elements of a latent, D.
    """

    @neutral()
    def __init__(self, num_modes: int, size: int) -> None:
        self.num_modes = num_modes
        self.capacity = HELD_PER_MODE * num_modes
        self.num_points = 0
        self._points = torch.empty(0, size)
        self._weights = torch.empty(0, dtype=torch.float64)

    @property
    def points(self) -> torch.Tensor:
        """The points, (P, D) float32."""
        return self._points[: self.num_points]

    @property
    def weights(self) -> torch.Tensor:
        """How many latents are behind each point, (P,) float64."""
        return self._weights[: self.num_points]

    @neutral()
    def update(self, latents: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Add latents.

        Args:
            latents: (B, ...) with D elements each.
            weights: (B,), how many latents each stands for; one by default.
        """
        latents = latents.flatten(1).float()
        weights = torch.ones(len(latents), dtype=torch.float64) if weights is None else weights
        while len(latents):
            if self.num_points == self.capacity:
                self._join()
            taken = min(len(latents), self.capacity - self.num_points)
            self._append(latents[:taken], weights[:taken])
            latents, weights = latents[taken:], weights[taken:]

    def merge(self, other: ModePoints) -> None:
        """Add what `other` stands for; it stays as it is."""
        self.update(other.points, other.weights)

    @neutral()
    def centroids(self) -> torch.Tensor:
        """Return the centroids of the modes, (M, D) float32; there must be as many points."""
        return find_centroids(self.points, self.weights, self.num_modes)

    def _append(self, latents: torch.Tensor, weights: torch.Tensor) -> None:
        end = self.num_points + len(latents)
        if end > len(self._points):  # room doubles: a class of few images takes little
            room = min(self.capacity, max(end, 2 * len(self._points)))
            self._points = torch.cat(
                [self.points, latents.new_empty(room - self.num_points, latents.shape[1])]
            )
            self._weights = torch.cat([self.weights, weights.new_empty(room - self.num_points)])
        self._points[self.num_points : end] = latents
        self._weights[self.num_points : end] = weights
        self.num_points = end

    def _join(self) -> None:
        """Join points that are near to one at their mean, with their weight."""
        cells = cells_of_points(self.points, self.weights, KEPT_PER_MODE * self.num_modes)
        weights, points = self.weights, self.points
        _, cells = cells.unique(return_inverse=True)  # a cell may be empty
        number = int(cells.max()) + 1
        joined = torch.zeros(number, dtype=torch.float64).index_add_(0, cells, weights)
        means = torch.zeros(number, points.shape[1], dtype=torch.float64)
        means.index_add_(0, cells, points * weights[:, None])
        self.num_points = 0
        self._append((means / joined[:, None]).float(), joined)
