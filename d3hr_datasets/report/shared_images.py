"""Held-out images that are training images: pixels of both -> how many, or an error if most are.

Such an image is as near to a training image as a copy is, and so hides one. A folder that was given twice, or
a data set without splits, would make every set look honest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch

from d3hr_datasets.errors import ConfigError


class SharedImages:
    """Held-out images that are training images, by their pixels.

    Args:
        pixels: Held-out images, uint8 (M, C, S, S), not encoded.

    Attributes:
        number: Those that were found among training images.
    """

    def __init__(self, pixels: torch.Tensor) -> None:
        self._left: dict[bytes, int] = {}
        for image in pixels:
            digest = _digest(image)
            self._left[digest] = self._left.get(digest, 0) + 1
        self._all, self.number = len(pixels), 0

    def looked_for(self, blocks: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield blocks of training images, in which held-out images are looked for.

        Raises:
            ConfigError: Most held-out images were found.
        """
        for block in blocks:
            for image in block if self._left else ():
                self.number += self._left.pop(_digest(image), 0)
            if 2 * self.number > self._all:
                raise ConfigError(
                    f"{self.number} or more of {self._all} held-out images are training images, pixel by "
                    "pixel; give images that the artifact was not built from, such as the test set"
                )
            yield block


def _digest(image: torch.Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().numpy().data).digest()
