"""Noise of whole numbers by the discrete Gaussian law, exact: no floating-point number takes part.

In: a standard deviation, a source of random bits. Out: integers. Gaussian noise that is drawn in floating
point gives away more than its law says, by its last bits (Mironov, 2012); these have none.

Source: Canonne, Kamath and Steinke (2020), "The discrete Gaussian for differential privacy", its algorithms.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random, SystemRandom

import torch

from d3hr_datasets.numerics.torch_settings import neutral

BLOCK = 512  # bytes that the system is asked for at a time
DRAWN = 4096  # numbers at a time


class SystemBits(SystemRandom):
    """Random bits of the system, as `SystemRandom`, but asked for in blocks: many small questions take long.

    They come from no seed, so nobody can draw them again; none are kept after they are used.
    """

    _bits, _left = 0, 0

    def getrandbits(self, k: int) -> int:
        """Return a whole number of k bits."""
        while self._left < k:
            self._bits |= int.from_bytes(os.urandom(BLOCK), "little") << self._left
            self._left += 8 * BLOCK
        number = self._bits & ((1 << k) - 1)
        self._bits >>= k
        self._left -= k
        return number


@neutral()
def noisy(
    values: torch.Tensor, scale: int, source: Random, advance: Callable[[int], object] = lambda number: None
) -> torch.Tensor:
    """Return whole numbers with noise of their own each.

    Args:
        values: int64, any shape, up to 2^62.
        scale: Standard deviation of the law, a whole number from 1 to `artifact.privacy.MAX_NOISE`.
        source: Of random bits. Only `SystemBits` keeps a promise.
        advance: Called with how many numbers have got their noise.
    """
    found = values.flatten().clone()
    for block in found.split(DRAWN):  # Python's integers take five times the room of the tensor's
        block.add_(torch.tensor([discrete_gaussian(scale, source) for _ in range(len(block))]))
        advance(len(block))
    return found.view(values.shape)


def discrete_gaussian(scale: int, source: Random) -> int:
    """Return a whole number x with a probability in proportion to exp(-x^2 / (2 scale^2))."""
    laplace, square = scale + 1, scale * scale
    while True:
        number = _discrete_laplace(laplace, source)
        excess = abs(number) * laplace - square
        if _happens_exp(excess * excess, 2 * square * laplace * laplace, source):
            return number


def _discrete_laplace(scale: int, source: Random) -> int:
    """Return a whole number x with a probability in proportion to exp(-|x| / scale)."""
    while True:
        rest = source.randrange(scale)
        if not _happens_exp(rest, scale, source):
            continue
        whole = 0
        while _happens_exp(1, 1, source):
            whole += 1
        number, negative = rest + scale * whole, source.getrandbits(1)
        if number or not negative:  # there is one zero
            return -number if negative else number


def _happens_exp(numerator: int, denominator: int, source: Random) -> bool:
    """Return True with the probability exp(-numerator / denominator)."""
    while numerator > denominator:
        if not _happens_exp(1, 1, source):
            return False
        numerator -= denominator
    number = 1
    while source.randrange(denominator * number) < numerator:
        number += 1
    return number % 2 == 1
