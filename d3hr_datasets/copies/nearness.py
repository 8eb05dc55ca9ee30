"""How near images are to training images: pixels -> distances in pixels and in features.

In: uint8 images, and the training images in blocks, of the same size and channels. Out: for each image two
measures in each space.

- `distance` to the nearest training image. It is small for copies, and for images that are plain or typical,
  which are near many.
- `ratio` of that to the mean distance of the nearest `NEIGHBOURS`. It is small where one training image
  stands out as the nearest, which is what a copy is. It does not depend on how plain an image is.

Neighbours are looked for among all training images, whatever their class.

Source: Carlini et al., "Extracting Training Data from Diffusion Models" (arXiv 2301.13188), section 5.1, for
the ratio with 50 neighbours, because a distance alone takes plain images for copies. Somepalli et al.,
"Diffusion Art or Digital Forgery?" (arXiv 2212.03860), for features of unit length.
Differs from reference: no factor and no fixed threshold; `exceedances` compares with held-out images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torchvision.transforms.v2 import functional as F

from d3hr_datasets.copies.neighbours import NeighbourSearch
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral

NEIGHBOURS = 50
SIDE = 64  # pixels; larger images are compared by small copies of them
PIXELS, FEATURES = "pixels", "features"
SPACES = {
    PIXELS: "root mean square difference of pixels, of 255",
    FEATURES: "Euclidean distance of features of unit length",
}

Features = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Nearness:
    """How near some images are to the training images, in one space.

    Args:
        distance: (N,) float64, to the nearest; its unit is that of `SPACES`.
        ratio: (N,) float64 in [0, 1], of `distance` to the mean over the nearest `NEIGHBOURS`.
        nearest: (N,) int64, the number of the nearest training image.
    """

    distance: torch.Tensor
    ratio: torch.Tensor
    nearest: torch.Tensor

    def part(self, first: int, last: int) -> Nearness:
        """Return that of the images from number `first` to before `last`."""
        places = slice(first, last)
        return Nearness(self.distance[places], self.ratio[places], self.nearest[places])


@neutral()
def measure_nearness(
    images: torch.Tensor,
    blocks: Iterable[torch.Tensor],
    num_training: int,
    features: Features | None = None,
    own: torch.Tensor | None = None,
) -> dict[str, Nearness]:
    """Return how near images are to training images, in pixels and, where there are any, in features.

    Args:
        images: uint8 (N, C, H, W), at least one.
        blocks: Training images, uint8 (B, C, H, W) each, in an order that `nearest` counts in.
        num_training: How many they are in all.
        features: Images as above to features (B, D).
        own: (N,) int64: of images that are training images, their numbers, so that each is compared with the
            others (leave one out); -1 of images that are none.

    Raises:
        ConfigError: The images are of different shapes, or there are fewer than two to compare with.
    """
    left_out = int(own is not None and bool((own >= 0).any()))
    count = min(NEIGHBOURS, num_training - left_out)
    if count < 2:
        raise ConfigError(
            f"there are {num_training} training images; to tell which is the nearest, at least "
            f"{2 + left_out} are needed"
        )
    searches = {PIXELS: NeighbourSearch(_small(images), count, own)}
    if features is not None:
        searches[FEATURES] = NeighbourSearch(_unit(features(images)), count, own)
    for block in blocks:
        if block.shape[1:] != images.shape[1:]:
            raise ConfigError(
                f"the images are {tuple(images.shape[1:])} (channels, height, width), training images "
                f"{tuple(block.shape[1:])}; resize and convert one as the other"
            )
        searches[PIXELS].add(_small(block))
        if features is not None:
            searches[FEATURES].add(_unit(features(block)))
    num_values = _small(images[:1]).numel()
    return {
        space: _nearness(search, num_values**0.5 if space == PIXELS else 1.0)
        for space, search in searches.items()
    }


@neutral()
def pixel_distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the distances of pairs of images, uint8 (N, C, H, W) each, as `Nearness` has them in pixels."""
    differences = _small(first).flatten(1).double() - _small(second).flatten(1).double()
    return differences.square().mean(dim=1).sqrt()


def _nearness(search: NeighbourSearch, unit: float) -> Nearness:
    distances = search.squared.sqrt() / unit
    nearest, mean = distances[:, 0], distances.mean(dim=1)
    return Nearness(nearest, torch.where(nearest > 0, nearest / mean, 0.0), search.nearest)


def _small(images: torch.Tensor) -> torch.Tensor:
    """Return images whose longer side is at most `SIDE`."""
    longest = max(images.shape[-2:])
    if longest <= SIDE:
        return images
    size = [max(1, round(side * SIDE / longest)) for side in images.shape[-2:]]
    small: torch.Tensor = F.resize(images, size, antialias=True)
    return small


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Return features (N, D) of unit length, float64 on the CPU; those without a length stay 0."""
    values = features.detach().cpu().double()
    unit: torch.Tensor = values / values.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return unit
