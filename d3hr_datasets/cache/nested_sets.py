"""Nested sets of several sizes, whose images are the same: their caches -> the first images of a class."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import Image

from d3hr_datasets.cache.image_cache import ImageCache


def cached_images(caches: Iterable[ImageCache], label: int, ipc: int) -> list[Image.Image]:
    """Return the first images of a label, at most `ipc`, of that cache which has the most, checked."""
    best: list[Image.Image] = []
    for cache in caches:
        count = min(cache.ipc, ipc)
        if count > len(best) and cache.is_complete(label):
            images = [cache.read(label, index) for index in range(count)]
            if None not in images:
                best = [image for image in images if image is not None]
    return best
