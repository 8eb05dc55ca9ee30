"""What is in the model at a time: groups of latents -> batches across them -> groups of images.

In: groups in their order. Out: the same, each as soon as all of its images are made. All batches but the last
are equally large, whatever the groups are, as long as memory suffices. Where a device works on its own, the
next batch is started before one is finished.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from PIL import Image

from d3hr_datasets.config.defaults import BATCH_CLASSES, BATCH_SIZE
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.devices import advice_on_memory

MAX_BATCH_SIZE = 1024  # that is found, beyond which a GPU gains nothing
SHARE = 0.5  # of the memory that is free; a found size must not be one that just fits

# Returns the images of a batch that was started, when they are made.
Finish = Callable[[], list[Image.Image]]

Made = TypeVar("Made", bound=Sized)

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


@dataclass
class _Batch:
    """A batch that was started.

    Args:
        number: Its images.
        finish: Returns them.
        shares: Groups in their order, how many of the images are theirs, and whether these are their last.
    """

    number: int
    finish: Finish
    shares: list[tuple[UnfinishedGroup, int, bool]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.number


class BatchSize:
    """How many images are in the model at a time: as many as memory suffices for.

    Args:
        given: At most so many; None for `BATCH_SIZE` and, on CUDA, as many more as free memory holds after
            the first batch has shown what an image needs.
        device: Where the model runs.
        cpu_offload: Whether parts of the model wait in the host's memory; only said where memory is short.
    """

    def __init__(self, given: int | None, device: torch.device, cpu_offload: bool = False) -> None:
        self.value = BATCH_SIZE if given is None else given
        self._device, self._cpu_offload = device, cpu_offload
        self._is_open = given is None and device.type == "cuda"

    def run(self, call: Callable[[int], Made]) -> Made:
        """Return what a call makes with so many latents in the model; the number is halved until they fit.

        Raises:
            ConfigError: One does not fit.
        """
        before = torch.cuda.memory_allocated(self._device) if self._is_open else 0
        while (made := self._try(call)) is None:
            self.value, self._is_open = self.value // 2, False
            logger.warning("the memory of %s is full; batches have %d images now", self._device, self.value)
            torch.cuda.empty_cache()  # does nothing without CUDA
        if self._is_open and len(made) >= self.value:
            self._grow(before)
        return made

    def _try(self, call: Callable[[int], Made]) -> Made | None:
        """Return what is made, or None if memory is short; what was in it is let go then."""
        try:
            return call(self.value)
        except torch.OutOfMemoryError as error:
            if self.value == 1:
                raise ConfigError(
                    f"not even one image at a time fits into the memory of {self._device}; "
                    f"{advice_on_memory(not self._cpu_offload)}"
                ) from error
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
    start: Callable[[torch.Tensor, torch.Tensor, int], Finish],
    size: BatchSize,
    *,
    ahead: bool = False,
    together: int = 1,
) -> Iterator[UnfinishedGroup]:
    """Yield groups in their order, each when its images are made.

    Args:
        groups: The groups; the next is asked for when there is room in a batch.
        start: Begins to make images of latents (B, C, H, W) and the model's class labels (B,), with at most
            so many in the model at a time.
        size: Latents in the model at a time.
        ahead: Start a batch before the one before it is finished.
        together: How many times as many latents are started at a time.
    """
    waiting: deque[UnfinishedGroup] = deque()
    started: deque[_Batch] = deque()

    def next_batch() -> Iterator[UnfinishedGroup]:
        started.append(_start(waiting, start, size, together))
        while len(started) > ahead:
            yield from _finish(started.popleft())

    for group in groups:
        waiting.append(group)
        while (
            sum(len(group.latents) for group in waiting) >= together * size.value
            or len(waiting) == BATCH_CLASSES
        ):
            yield from next_batch()
    while waiting:
        yield from next_batch()
    for batch in started:
        yield from _finish(batch)


def _start(
    waiting: deque[UnfinishedGroup],
    start: Callable[[torch.Tensor, torch.Tensor, int], Finish],
    size: BatchSize,
    together: int,
) -> _Batch:
    """Start a batch of the groups that wait; those of which all is started wait no longer."""

    def start_first(most: int) -> _Batch:
        latents: list[torch.Tensor] = []
        labels: list[int] = []
        for group in waiting:
            part = group.latents[: together * most - len(labels)]
            if len(part):
                latents.append(part)
                labels += [group.class_label] * len(part)
        if not labels:
            return _Batch(0, list)
        return _Batch(len(labels), start(torch.cat(latents), torch.tensor(labels), most))

    batch = size.run(start_first)
    left, is_whole = len(batch), True
    while waiting and is_whole:
        group = waiting[0]
        count = min(len(group.latents), left)
        group.latents, left = group.latents[count:], left - count
        is_whole = not len(group.latents)
        batch.shares.append((group, count, is_whole))
        if is_whole:
            waiting.popleft()
    return batch


def _finish(batch: _Batch) -> Iterator[UnfinishedGroup]:
    """Give groups their images, and yield those that are complete then."""
    made = batch.finish()
    for group, count, is_whole in batch.shares:
        group.images += made[:count]
        made = made[count:]
        if is_whole:
            yield group
