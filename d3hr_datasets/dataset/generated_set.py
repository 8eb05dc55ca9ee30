"""A set of images in the cache, with what makes them: the same in any process that has the model.

In: what pixels depend on, and the root of a cache. Out: the classes that are missing, generated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.dataset.image_generator import ImageGenerator

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion

MAX_LOCKS = 64  # classes that are generated together, each of which holds a lock


@dataclass(frozen=True, eq=False)
class GeneratedSet:
    """The images of an epoch.

    Args:
        generator: What makes them.
        cache: Where they lie.
    """

    generator: ImageGenerator
    cache: ImageCache

    @classmethod
    def of(cls, generator: ImageGenerator, root: Path) -> GeneratedSet:
        """Return the set of a generator below the root of a cache."""
        return cls(generator, generator.cache(root))

    def at(self, epoch: int) -> GeneratedSet:
        """Return the set of another epoch."""
        return GeneratedSet.of(dataclasses.replace(self.generator, epoch=epoch), self.cache.root)

    def missing(self, share: Iterable[int]) -> list[int]:
        """Return those labels of a share whose groups are not there, or damaged.

        Raises:
            CacheError: There are other images in the folders of the share.
        """
        share = list(share)
        self.cache.check(share)
        return [label for label in share if not self.cache.is_complete(label)]

    def batches(self, labels: list[int], batch_size: int) -> Iterator[list[int]]:
        """Yield the labels that are generated together, of which each holds a lock meanwhile."""
        generator = self.generator
        step = 1 if generator.nested else max(1, min(batch_size // generator.ipc, MAX_LOCKS))
        for start in range(0, len(labels), step):
            yield labels[start : start + step]

    def make(self, labels: list[int], batch_size: int, model: Callable[[], LatentDiffusion]) -> None:
        """Have the groups of labels on disk; those that another process makes meanwhile are waited for.

        Args:
            labels: The labels.
            batch_size: Images in the model at a time.
            model: Returns the model; not called if nothing is missing.

        Raises:
            CacheError: The cache cannot be written.
        """

        def generate(missing: list[int]) -> dict[int, list[Image.Image]]:
            with torch.random.fork_rng(devices=[]):  # loading a model must not move the user's generator
                loaded = model()  # says what does not fit before the statistics do
                return self.generator.generate(loaded, missing, batch_size, self.cache.root)

        self.cache.ensure_together(labels, generate)
