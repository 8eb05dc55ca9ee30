"""The order of images, as a function of seed and step, so that a run can go on anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from recipes.common.errors import RecipeError


def shuffled_batches(count: int, batch_size: int, seed: int, step: int) -> Iterator[torch.Tensor]:
    """Yield index batches without end, from step `step` on: a new permutation for every epoch.

    The sequence depends on `seed` and `step` alone, so that a resumed run goes on where it stopped.
    """
    per_epoch = count // batch_size
    if per_epoch == 0:
        raise RecipeError(f"a batch of {batch_size} is larger than the {count} images; lower batch_size")
    while True:
        epoch, first = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(count, generator=generator)[: per_epoch * batch_size]
        for index in order.view(per_epoch, batch_size)[first:]:
            step += 1
            yield index
