"""A set of images in the cache, with what makes them: the same in any process that has the model.

In: what pixels depend on, and the root of a cache. Out: the classes that are missing, generated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.dataset.batches import BatchSize
from d3hr_datasets.dataset.generation_progress import GenerationProgress
from d3hr_datasets.dataset.image_generator import ImageGenerator

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion


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

    def make(
        self,
        labels: list[int],
        batch_size: int | None,
        model: Callable[[], LatentDiffusion],
        progress: GenerationProgress | None = None,
    ) -> Generator[int, None, None]:
        """Have the groups of labels on disk, and yield each label when its group is there.

        Groups are written while the model makes the next ones. Those that another process makes meanwhile
        are waited for. Run it in `neutral` settings, and close it if not everything is asked for.

        Args:
            labels: The labels.
            batch_size: Images in the model at a time; None to have it found (`BatchSize`).
            model: Returns the model; not called if nothing is missing.
            progress: Is told of images as they are made, and of groups that another process made.

        Raises:
            CacheError: The cache cannot be written.
        """
        shown = GenerationProgress(0, shown=False) if progress is None else progress
        made_here: set[int] = set()

        def noted(missing: Iterator[int]) -> Iterator[int]:
            for label in missing:
                made_here.add(label)
                yield label

        def generate(missing: Iterator[int]) -> Generator[tuple[int, list[Image.Image]], None, None]:
            missing = noted(missing)
            for first in missing:
                with torch.random.fork_rng(devices=[]):  # loading a model must not move the user's generator
                    loaded = model()  # says what does not fit before the statistics do
                size = BatchSize(batch_size, loaded.device, loaded.placement.is_offloaded)
                those = itertools.chain([first], missing)
                yield from self.generator.generate(loaded, those, size, self.cache.root, shown)

        with contextlib.closing(self.cache.ensure_each(labels, generate)) as there:
            for label in there:
                if label not in made_here:
                    shown.leave_out(self.cache.ipc)
                yield label
