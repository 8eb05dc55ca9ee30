"""Images that are read while the model runs: records -> batches for a model."""

from __future__ import annotations

import hashlib
import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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


def read_ahead(
    pool: ThreadPoolExecutor, records: Sequence[ImageRecord], batch_size: int, info: ArtifactInfo
) -> Iterator[list[tuple[ImageRecord, Future[Item]]]]:
    """Yield batches of images that are being read; the next batch is, too, while one is worked on."""
    ahead: list[tuple[ImageRecord, Future[Item]]] = []
    for first in range(0, len(records), batch_size):
        batch = ahead
        ahead = [(one, pool.submit(read_record, one, info)) for one in records[first : first + batch_size]]
        if batch:
            yield batch
    if ahead:
        yield ahead


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
