"""Images of a set with the channels that a student takes, by the rules of `pixel_format`."""

from __future__ import annotations

import dataclasses

import torch
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import get_num_channels

from d3hr_datasets.image_sets.image_set import ImageSet, close_images
from d3hr_datasets.image_sets.pixel_format import pil_to_pixels, to_channels
from d3hr_datasets.students.views import Images, set_epoch


def with_channels(images: ImageSet, channels: int) -> ImageSet:
    """Return a set whose images have the channels that a student takes; the same set, where they have them.

    Args:
        images: All of the same number of channels.
        channels: 1 or 3.
    """
    if not len(images.images) or get_num_channels(images.images[0][0]) == channels:
        return images
    return dataclasses.replace(images, images=_WithChannels(images.images, channels))


class _WithChannels(Dataset[tuple[torch.Tensor, int]]):
    """Images as uint8 (channels, H, W), each converted when it is asked for.

    Raises `UnreadableImageError` for one that is coloured where one channel is asked for.
    """

    def __init__(self, images: Images, channels: int) -> None:
        self._images, self._channels = images, channels

    def __len__(self) -> int:
        return len(self._images)

    def set_epoch(self, epoch: int) -> None:
        """Tell the images that are converted which epoch it is."""
        set_epoch(self._images, epoch)

    def close(self) -> None:
        """Tell the images that are converted that they are not needed any more."""
        close_images(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self._images[index]
        where = f"image {index}"
        if isinstance(image, torch.Tensor):
            return to_channels(image, self._channels, where), label
        return pil_to_pixels(image, self._channels, where), label
