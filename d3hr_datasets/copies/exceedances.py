"""How many images are nearer than held-out images, and how many would be by chance.

In: a measure of nearness of generated and of held-out images, with labels. Out: which are near, how many are
expected, and how likely so many are if generated images were drawn as held-out ones are.

An image is near where its measure is below that of a held-out image of its class: the last of the nearest
`NEAR` of them, of few the nearest one. So of few held-out images more than `NEAR` of the images are near by
chance. Classes differ in how near their images are, so each has its own threshold, and another mix of classes
changes nothing. Equal measures are not below: of ties fewer are counted than the law has, never more.

Source: Meehan, Chaudhuri, Dasgupta (arXiv 2004.05675) compare the same three samples (training, held out,
generated), by ranks in cells. Here the cells are the classes, and the statistic is the number beyond a rank,
because copies may be few. Its law is that of exceedances (Gumbel and von Schelling, 1950): beta-binomial, for
any law of the measure, with the uncertainty of a threshold from finitely many held-out images in it. It holds
where nothing but the model's memory tells generated from held-out images. Images that are more typical, as
guided ones are, or that are drawn as a group, are other than these without being copies; and images that were
picked from the training images themselves are one another's neighbours, so that they obey another law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma

import numpy as np
import numpy.typing as npt
import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral

NEAR = 0.01  # of the held-out images of a class


@dataclass(frozen=True)
class Exceedances:
    """Generated images that are nearer than nearly all held-out ones.

    Args:
        near: (N,) bool, which they are.
        expected: Their number by chance.
        shares: Of the images of a class that are near by chance, the least and the greatest of all classes.
        law: (N + 1,), the chances of 0, 1, ... near images, over all classes.
        class_p_values: Chance of at least so many in each class alone, by label; without those that have no
            generated image.
    """

    near: torch.Tensor
    expected: float
    shares: tuple[float, float]
    law: npt.NDArray[np.float64]
    class_p_values: dict[int, float]

    @property
    def p_value(self) -> float:
        """Chance of at least so many, over all classes."""
        return _tail(self.law, int(self.near.sum()))

    def needed(self, level: float) -> int:
        """Return the least number of near images whose chance is below a level; N + 1 if there is none."""
        tails = self.law[::-1].cumsum()[::-1]
        return int((tails >= level).sum())


@neutral()
def count_exceedances(
    values: torch.Tensor, labels: torch.Tensor, held_out: torch.Tensor, held_out_labels: torch.Tensor
) -> Exceedances:
    """Count the generated images that are nearer than nearly all held-out images of their class.

    Args:
        values: (N,), a measure of generated images; the smaller, the nearer.
        labels: (N,) int64.
        held_out: (M,), of held-out images.
        held_out_labels: (M,) int64.

    Raises:
        ConfigError: A class has no held-out image.
    """
    near = torch.zeros(len(values), dtype=torch.bool)
    expected, shares, by_class = 0.0, [], {}
    law = np.ones(1)
    for label in labels.unique().tolist():
        mine = labels == label
        others = held_out[held_out_labels == label].sort().values
        if not len(others):
            raise ConfigError(f"label {label} has generated images and no held-out image; give some of it")
        rank = max(1, int(NEAR * len(others)))
        near |= mine & (values < others[rank - 1])
        shares.append(rank / (len(others) + 1))
        of_class = exceedance_law(int(mine.sum()), rank, len(others))
        by_class[label] = _tail(of_class, int((near & mine).sum()))
        expected += int(mine.sum()) * shares[-1]
        law = np.convolve(law, of_class)
    return Exceedances(near, expected, (min(shares), max(shares)), law, by_class)


def exceedance_law(num_images: int, rank: int, num_held_out: int) -> npt.NDArray[np.float64]:
    """Return the chances that 0, 1, ... of `num_images` are below the held-out image of a rank from below.

    Args:
        num_images: Generated ones.
        rank: From 1, the smallest, to `num_held_out`.
        num_held_out: Held-out ones, drawn from the same law.

    Returns:
        (num_images + 1,), which sum to 1.
    """
    above = num_held_out + 1 - rank
    total = _log_beta(rank, above)
    chances = [
        exp(_log_choose(num_images, below) + _log_beta(below + rank, num_images - below + above) - total)
        for below in range(num_images + 1)
    ]
    return np.array(chances)


def _tail(law: Sequence[float] | npt.NDArray[np.float64], number: int) -> float:
    """Return the chance of at least so many; small ones are not made of a difference from 1."""
    return min(1.0, float(np.sum(law[number:])))


def _log_beta(first: float, second: float) -> float:
    return lgamma(first) + lgamma(second) - lgamma(first + second)


def _log_choose(total: int, part: int) -> float:
    return lgamma(total + 1) - lgamma(part + 1) - lgamma(total - part + 1)
