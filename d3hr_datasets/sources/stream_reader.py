"""Runs of a stream: shard and first image -> records, read on from where the last run ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from d3hr_datasets.sources.records import ImageRecord, Images


class StreamReader:
    """Reads runs of images. A run that comes after the last one is not looked for from the stream's start.

    Args:
        images: Where they come from.
    """

    def __init__(self, images: Images) -> None:
        self._images = images
        self._position: tuple[int, int, Iterator[ImageRecord]] | None = None

    def take(self, shard: int, start: int, number: int) -> list[ImageRecord]:
        """Return the records of at most `number` images of a shard, from its image `start` on."""
        if self._position is not None and self._position[0] == shard and self._position[1] <= start:
            records = self._position[2]
            for _ in itertools.islice(records, start - self._position[1]):
                pass
        else:
            records = self._images.records(shard, start)
        taken = list(itertools.islice(records, number))
        self._position = (shard, start + len(taken), records)
        return taken
