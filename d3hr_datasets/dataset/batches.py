"""What is in the model at a time: groups of latents -> batches across them -> groups of images.

In: groups in their order. Out: the same, each as soon as all of its images are made. All batches but the last
are equally large, whatever the groups are, as long as memory suffices.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from PIL import Image

from d3hr_datasets.config.defaults import BATCH_CLASSES, BATCH_SIZE

MAX_BATCH_SIZE = 1024  # that is found, beyond which a GPU gains nothing
SHARE = 0.5  # of the memory that is free; a found size must not be one that just fits

logger = logging.getLogger(__name__)


@dataclass
class UnfinishedGroup:
    """A group of which images are missing.

    Args:
        label: Its label.
        class_label: The model's.
        latents: (B, C, H, W) that are not denoised yet; (0,) if nothing is missing.
        images: That are there.
    """

    label: int
    class_label: int
    latents: torch.Tensor
    images: list[Image.Image]

    def add(self, made: list[Image.Image]) -> None:
        """Take what was made of the first latents."""
        self.images += made
        self.latents = self.latents[len(made) :]


class BatchSize:
    """How many images are in the model at a time: as many as memory suffices for.

    Args:
        given: At most so many; None for `BATCH_SIZE` and, on CUDA, as many more as free memory holds after
            the first batch has shown what an image needs.
        device: Where the model runs.
    """

    def __init__(self, given: int | None, device: torch.device) -> None:
        self.value = BATCH_SIZE if given is None else given
        self._device = device
        self._is_open = given is None and device.type == "cuda"

    def run(self, call: Callable[[int], list[Image.Image]]) -> list[Image.Image]:
        """Return what a call makes of at most so many latents; the number is halved until they fit.

        Raises:
            torch.OutOfMemoryError: One does not fit.
        """
        before = torch.cuda.memory_allocated(self._device) if self._is_open else 0
        while (made := self._try(call)) is None:
            self.value, self._is_open = self.value // 2, False
            logger.warning("the memory of %s is full; batches have %d images now", self._device, self.value)
            torch.cuda.empty_cache()  # does nothing without CUDA
        if self._is_open and len(made) == self.value:
            self._grow(before)
        return made

    def _try(self, call: Callable[[int], list[Image.Image]]) -> list[Image.Image] | None:
        """Return what is made, or None if memory is short; what was in it is let go then."""
        try:
            return call(self.value)
        except torch.OutOfMemoryError:
            if self.value == 1:
                raise
            return None

    def _grow(self, before: int) -> None:
        """Choose the size by what the first whole batch needed at its peak, once.

        The peak may be that of something earlier, which makes it smaller than it could be, and never larger.
        """
        self._is_open = False
        device = self._device
        each = max(1, (torch.cuda.max_memory_allocated(device) - before) // self.value)
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        self.value = max(self.value, min(MAX_BATCH_SIZE, int(SHARE * free / each)))


def in_batches(
    groups: Iterable[UnfinishedGroup],
    decode: Callable[[torch.Tensor, torch.Tensor], list[Image.Image]],
    size: BatchSize,
) -> Iterator[UnfinishedGroup]:
    """Yield groups in their order, each when its images are made.

    Args:
        groups: The groups; the next is asked for when there is room in a batch.
        decode: Makes images of latents (B, C, H, W) and the model's class labels (B,).
        size: Latents in a batch.
    """
    waiting: deque[UnfinishedGroup] = deque()
    for group in groups:
        waiting.append(group)
        while sum(len(group.latents) for group in waiting) >= size.value or len(waiting) == BATCH_CLASSES:
            yield from _next_batch(waiting, decode, size)
    while waiting:
        yield from _next_batch(waiting, decode, size)


def _next_batch(
    waiting: deque[UnfinishedGroup],
    decode: Callable[[torch.Tensor, torch.Tensor], list[Image.Image]],
    size: BatchSize,
) -> Iterator[UnfinishedGroup]:
    """Decode a batch of the groups that wait, and yield those that are complete then."""

    def decode_first(most: int) -> list[Image.Image]:
        latents: list[torch.Tensor] = []
        labels: list[int] = []
        for group in waiting:
            part = group.latents[: most - len(labels)]
            if len(part):
                latents.append(part)
                labels += [group.class_label] * len(part)
        return decode(torch.cat(latents), torch.tensor(labels)) if labels else []

    made = size.run(decode_first)
    for group in waiting:
        count = min(len(group.latents), len(made))
        group.add(made[:count])
        made = made[count:]
    while waiting and not len(waiting[0].latents):
        yield waiting.popleft()
