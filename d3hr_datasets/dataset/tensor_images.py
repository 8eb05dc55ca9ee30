"""A set in memory as one tensor: images one by one -> uint8 (N, C, H, W) -> transformed batches of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets.config.defaults import NUM_READERS
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def stack_images(
    read: Callable[[int], Image.Image | None], make: Callable[[int], Image.Image], count: int
) -> torch.Tensor:
    """Return images as one tensor.

    Args:
        read: Returns an image by its index, or None if it is missing; called by several threads, which
            decode PNG side by side.
        make: Returns an image that is missing; called by this thread.
        count: Number of images, at least 1, all of one size and mode.

    Returns:
        (N, C, H, W) uint8.
    """
    first = pil_to_tensor(make(0))
    images = torch.empty(count, *first.shape, dtype=torch.uint8)

    def put(index: int, image: Image.Image | None) -> bool:
        if image is not None:
            images[index] = pil_to_tensor(image)
        return image is not None

    with ThreadPoolExecutor(NUM_READERS) as readers:
        for index, is_there in enumerate(readers.map(lambda index: put(index, read(index)), range(count))):
            if not is_there:
                put(index, make(index))
    return images


def transform_batch(images: torch.Tensor, transform: Callable[[Any], Any] | None) -> torch.Tensor:
    """Return a batch as a transform makes it: itself where there is none.

    Args:
        images: (B, C, H, W) uint8.
        transform: Takes that, and returns a tensor (B, ...).

    Raises:
        ConfigError: It returns something else.
    """
    made = images if transform is None else transform(images)
    if not isinstance(made, torch.Tensor) or made.dim() == 0 or len(made) != len(images):
        found = f"a tensor {tuple(made.shape)}" if isinstance(made, torch.Tensor) else repr(type(made))
        raise ConfigError(
            f"with in_memory='tensor' a transform takes a batch, uint8 {tuple(images.shape)}, and returns a "
            f"tensor with as many rows, not {found}; give one that takes batches, as most of torchvision's "
            "v2 do, or in_memory=True"
        )
    return made
