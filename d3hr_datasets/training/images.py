"""The images that a diffusion model is trained on: a source and a split -> pixels and labels.

In: what `TrainingSettings` says of images. Out: images by number, names of classes, and what tells them from
others. A folder and the sets of torchvision and of `datasets` stay on the disk; Fashion-MNIST is in memory.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

from d3hr_datasets.artifact.info_texts import MAX_CLASS_NAME
from d3hr_datasets.config.defaults import NUM_READERS
from d3hr_datasets.errors import ConfigError, SourceError
from d3hr_datasets.image_sets.real_images import load_images, split_indices
from d3hr_datasets.io.text import check_text
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.opening import SourceOptions, open_source
from d3hr_datasets.sources.records import Images
from d3hr_datasets.sources.resizing import read_pixels

HELD_OUT = 6  # one image in so many, of sources that do not say which to hold out


@dataclass(frozen=True)
class TrainingImages:
    """Images of one split, by number.

    Args:
        num_images: How many there are.
        classes: Names, in the order of the labels.
        identity: What tells them from others.
        read: Number to uint8 pixels (C, S, S) and label.
    """

    num_images: int
    classes: tuple[str, ...]
    identity: str
    read: Callable[[int], tuple[torch.Tensor, int]]

    @neutral()
    def batch(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return uint8 pixels (B, C, S, S) and int64 labels (B,); read by several threads.

        Raises:
            UnreadableImageError: An image cannot be read.
            ConfigError: A label is of no class.
        """
        with ThreadPoolExecutor(NUM_READERS) as pool:
            found = list(pool.map(self.read, numbers))
        for number, (_, label) in zip(numbers, found, strict=True):
            if not 0 <= label < len(self.classes):
                raise ConfigError(
                    f"image {number} has class label {label}; accepted: 0 to {len(self.classes) - 1}"
                )
        return torch.stack([pixels for pixels, _ in found]), torch.tensor([label for _, label in found])


@neutral()
def open_training_images(
    source: str, split: str, image_size: int, channels: int, download: bool = False
) -> TrainingImages:
    """Open the images of a split.

    Args:
        source: As `TrainingSettings` has it.
        split: Likewise. Fashion-MNIST holds out 10,000 images of its own, any other source a sixth.
        image_size: Side in pixels; other images are resized and cropped to it.
        channels: 1 (grey) or 3 (RGB).
        download: Let torchvision download it.

    Raises:
        SourceError: There is no such source, or it does not name its classes.
        ConfigError: It has no such split.
    """
    if source == "fashion-mnist":
        pixels, targets, names = load_images(source, split, image_size, channels, download)
        digest = hashlib.sha256(pixels.contiguous().numpy().tobytes() + targets.numpy().tobytes())
        return TrainingImages(
            len(pixels), tuple(names), digest.hexdigest(), partial(_of_tensors, pixels, targets)
        )
    is_folder = not source.startswith(("torchvision:", "datasets:"))
    if is_folder and split == "test":
        raise ConfigError(f"{source} has no test split; use held-out")
    options = SourceOptions(split="test" if split == "test" else "train", download=download)
    opened = open_source(source, options)
    images, classes = opened.images, opened.classes
    if classes is None or images.num_images is None or not images.has_random_access:
        raise SourceError(
            f"{source!r:.300} does not name its classes; bring its images into a folder with one folder per "
            "class"
        )
    for name in classes:  # as an artifact of them will want it, before hours of work
        check_text("a class name", name, MAX_CLASS_NAME)
    kept = torch.arange(images.num_images)
    if split in {"train", "held-out"}:
        kept = split_indices(len(kept), len(kept) // HELD_OUT, split)
    numbers: list[int] = kept.tolist()
    if not numbers:
        raise ConfigError(
            f"split = {split!r} of the {images.num_images} images of {source} has none; it is one in "
            f"{HELD_OUT}: give more images, or another split"
        )
    known = [opened.description, images.identity, images.identity_of(numbers), numbers[-1:], len(numbers)]
    identity = hashlib.sha256(json.dumps([known, classes], default=str).encode()).hexdigest()
    read = partial(_of_records, images, numbers, image_size, "L" if channels == 1 else "RGB")
    return TrainingImages(len(numbers), tuple(classes), identity, read)


def _of_tensors(pixels: torch.Tensor, targets: torch.Tensor, number: int) -> tuple[torch.Tensor, int]:
    return pixels[number], int(targets[number])


def _of_records(
    images: Images, numbers: Sequence[int], image_size: int, mode: str, number: int
) -> tuple[torch.Tensor, int]:
    pixels, label = read_pixels(next(iter(images.records(0, numbers[number]))), image_size, mode)
    try:
        return pixels, operator.index(label)
    except TypeError:
        return pixels, -1
