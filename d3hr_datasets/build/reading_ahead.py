"""Images that are read while the model runs: records -> batches for a model."""

from __future__ import annotations

import hashlib
import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.devices import advice_on_memory
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.records import ImageRecord
from d3hr_datasets.sources.resizing import read_pixels

logger = logging.getLogger(__name__)

Item = tuple[torch.Tensor, int]  # of `read_record`
Batch = list[tuple[ImageRecord, Future[Item]]]
Result = TypeVar("Result")


def read_record(record: ImageRecord, info: ArtifactInfo) -> tuple[torch.Tensor, int]:
    """Read an image for a model.

    Returns:
        (C, S, S) float32 in [-1, 1] with its frame, and its class label.

    Raises:
        UnreadableImageError: As `read_pixels`.
        ConfigError: Likewise, or it has a label that is no class of `info`.
    """
    pixels, label = read_pixels(record, info.image_size, info.image_mode, info.inversion.resizing)
    try:
        number = operator.index(label)
    except TypeError:
        number = -1
    if not 0 <= number < len(info.classes):
        raise ConfigError(f"{record.where} has class label {label}; accepted: 0 to {len(info.classes) - 1}")
    return to_model_range(pixels, info.padding), number


@neutral()
def image_digest(image: torch.Tensor, label: int) -> int:
    """Return a number that names an image and its label; a source's fingerprint is their sum modulo 2^256."""
    digest = hashlib.sha256(image.numpy().tobytes() + label.to_bytes(8, "big"))
    return int.from_bytes(digest.digest(), "big")


class ReadAhead:
    """Images that threads read, from now on: a batch, and the next one while one is worked on.

    Args:
        records: The images.
        batch_size: Of them in a batch.
        info: Size, mode and frame of the images, and their classes.
        num_readers: Threads.
    """

    def __init__(
        self, records: Sequence[ImageRecord], batch_size: int, info: ArtifactInfo, num_readers: int
    ) -> None:
        self._pool = ThreadPoolExecutor(num_readers)
        self._batches = (records[first : first + batch_size] for first in range(0, len(records), batch_size))
        self._info = info
        self._ahead = self._begin_next()

    def batches(self, at_last: Callable[[], object] = lambda: None) -> Iterator[Batch]:
        """Yield the batches, whose images may still be being read; once, and the threads end with it.

        Args:
            at_last: Called when nothing is left to begin with, before the last batch is given out.
        """
        with self._pool:
            while self._ahead:
                batch, self._ahead = self._ahead, self._begin_next()
                if not self._ahead:
                    wait([future for _, future in batch])  # no more threads read than are asked for
                    at_last()
                yield batch

    def drop(self) -> None:
        """Read no more, and wait for what is being read."""
        self._pool.shutdown(cancel_futures=True)

    def _begin_next(self) -> Batch:
        return [(one, self._pool.submit(read_record, one, self._info)) for one in next(self._batches, ())]


class Relay:
    """Reads the images of chunks that are made one after the other.

    While the model is at the last batch of one, threads read the first batch of the next.

    Args:
        info: As of `ReadAhead`.
        num_readers: As of `ReadAhead`.
    """

    def __init__(self, info: ArtifactInfo, num_readers: int) -> None:
        self._info, self._num_readers = info, num_readers
        self._begun: tuple[tuple[int, int], ReadAhead] | None = None

    def batches(
        self,
        start: int,
        records: Sequence[ImageRecord],
        batch_size: int,
        following: Callable[[], tuple[int, Sequence[ImageRecord]] | None],
    ) -> Iterator[Batch]:
        """Return the batches of a chunk.

        Args:
            start: What names it.
            records: Its images.
            batch_size: Of them in a batch.
            following: Asked at the last batch: what names the next chunk, and its images, if one follows.
        """

        def begin() -> None:
            comes = following()
            if comes is not None:
                self._begun = (comes[0], batch_size), self._reading(comes[1], batch_size)

        if self._begun is not None and self._begun[0] != (start, batch_size):
            self.close()
        begun, self._begun = self._begun, None
        return (self._reading(records, batch_size) if begun is None else begun[1]).batches(begin)

    def close(self) -> None:
        """Read no more of what was begun."""
        if self._begun is not None:
            self._begun[1].drop()
            self._begun = None

    def _reading(self, records: Sequence[ImageRecord], batch_size: int) -> ReadAhead:
        return ReadAhead(records, batch_size, self._info, self._num_readers)


def halve_on_out_of_memory(
    work: Callable[..., Result], batch_size: int, model: LatentDiffusion | None
) -> Callable[..., Result]:
    """Return `work` without its first argument, the batch size, which is halved when memory runs out.

    The error where one image does not fit says whether it helps to have parts of `model` wait in the host's
    memory; of None they cannot.
    """
    # Not accelerate's `find_executable_batch_size`, which collects garbage at every call: a chunk.
    from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

    size = batch_size

    def call(*arguments: object) -> Result:
        nonlocal size
        while True:
            try:
                return work(size, *arguments)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if size == 1:
                    can_offload = model is not None and not model.placement.is_offloaded
                    raise ConfigError(
                        f"not even one image at a time fits into memory; {advice_on_memory(can_offload)}"
                    ) from error
            size //= 2
            logger.warning("out of memory: going on with batches of %d images", size)
            clear_device_cache(garbage_collection=True)

    return call
