"""The order of images, as a function of seed and step, so that a run can go on anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the steps in which every image is seen once, but for those that fill no batch.

    Raises:
        ConfigError: There are fewer images than a batch has.
    """
    if count < batch_size:
        raise ConfigError(f"a batch of {batch_size} is larger than the {count} images; lower batch_size")
    return count // batch_size


def shuffled_batches(
    count: int, batch_size: int, seed: int, step: int, mixed: int | None = None
) -> Iterator[torch.Tensor]:
    """Yield index batches without end, from step `step` on: a new permutation for every epoch.

    The sequence depends on `seed` and `step` alone, so that a resumed run goes on where it stopped.

    Args:
        count: Images.
        batch_size: Of all processes together.
        seed: Of the order.
        step: First one.
        mixed: Images that are shuffled among each other; None shuffles all. Neighbours stay near, which disks
            that read one place after another need.

    Raises:
        ConfigError: There are fewer images than a batch has.
    """
    per_epoch = steps_per_epoch(count, batch_size)
    while True:
        epoch, first = divmod(step, per_epoch)
        order = _order(count, seed * 100_003 + epoch, mixed)[: per_epoch * batch_size]
        for index in order.view(per_epoch, batch_size)[first:]:
            step += 1
            yield index


@neutral()
def _order(count: int, seed: int, mixed: int | None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if mixed is None or mixed >= count:
        return torch.randperm(count, generator=generator)
    starts = torch.arange(0, count, mixed)[torch.randperm(-(-count // mixed), generator=generator)].tolist()
    parts = [start + torch.randperm(min(mixed, count - start), generator=generator) for start in starts]
    return torch.cat(parts)
