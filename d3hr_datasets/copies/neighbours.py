"""Exact nearest neighbours: some vectors, and many others that come in blocks -> the nearest ones.

In memory are the vectors that ask, one block of the others, and the distances between `AT_ONCE` and a block.
"""

from __future__ import annotations

import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral

AT_ONCE = 1024  # vectors that are compared with a block


class NeighbourSearch:
    """The nearest of many vectors to each of some vectors, in Euclidean distance.

    Squared distances are made of products in float64. Those of uint8 images are exact, whatever the order of
    additions: all of it is integers below 2^53. Those of unit vectors are exact to about 1e-15. Of equally
    near vectors the first is taken.

    Args:
        vectors: Those that ask, (N, *shape), uint8 or floats.
        count: Neighbours of each whose distances are kept; at least one.
        own: (N,) int64, the number of the vector itself among the others, which is not its neighbour; None
            where they are not among them.

    Attributes:
        squared: (N, count) float64, squared distances of the nearest, ascending; infinite while fewer came.
        nearest: (N,) int64, the number of the nearest, in the order in which they came; -1 before.
    """

    @neutral()
    def __init__(self, vectors: torch.Tensor, count: int, own: torch.Tensor | None = None) -> None:
        self._vectors, self._own, self._seen = vectors, own, 0
        self.squared = torch.full((len(vectors), count), torch.inf, dtype=torch.float64)
        self.nearest = torch.full((len(vectors),), -1)

    @neutral()
    def add(self, block: torch.Tensor) -> None:
        """Compare with some more vectors (B, *shape).

        Raises:
            ConfigError: They are of another shape.
        """
        if block.shape[1:] != self._vectors.shape[1:]:
            raise ConfigError(
                f"images of the shape {tuple(self._vectors.shape[1:])} cannot be compared with others of "
                f"{tuple(block.shape[1:])} (channels, height, width); give both the same channels and size"
            )
        others = block.flatten(1).double()
        norms = others.square().sum(dim=1)
        for first in range(0, len(self._vectors), AT_ONCE):
            self._compare(slice(first, first + AT_ONCE), others, norms)
        self._seen += len(block)

    def _compare(self, rows: slice, others: torch.Tensor, norms: torch.Tensor) -> None:
        vectors = self._vectors[rows].flatten(1).double()
        squared = vectors.square().sum(dim=1)[:, None] + norms - 2 * (vectors @ others.T)
        squared.clamp_(min=0)
        if self._own is not None:
            own = self._own[rows] - self._seen
            here = ((own >= 0) & (own < len(others))).nonzero().flatten()
            squared[here, own[here]] = torch.inf
        least = squared.min(dim=1, keepdim=True).values
        places = torch.where(squared == least, torch.arange(len(others)), len(others)).min(dim=1).values
        nearer = least[:, 0] < self.squared[rows, 0]
        self.nearest[rows] = torch.where(nearer, places + self._seen, self.nearest[rows])
        count = self.squared.shape[1]
        found = squared.topk(min(count, len(others)), largest=False).values
        both = torch.cat([self.squared[rows], found], dim=1)
        self.squared[rows] = both.topk(count, largest=False).values
