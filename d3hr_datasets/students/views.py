"""Augmented views: a data set of images -> batches of float images in [0, 1], the same in every run.

A view is decided by seed, epoch and index alone: neither workers, processes nor an interruption change it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, runtime_checkable
from typing import Protocol as TypingProtocol

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import v2

from d3hr_datasets.students.protocol import Protocol

# Principal components of the RGB values of ImageNet, as all public code has them.
PCA_VALUES = (0.2175, 0.0188, 0.0045)
PCA_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

Network = Callable[[torch.Tensor], torch.Tensor]  # images (B, C, S, S) to logits (B, K)


class Images(TypingProtocol):
    """A data set of (PIL image or uint8 tensor (C, H, W), label)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


def set_epoch(images: Images, epoch: int) -> None:
    """Tell images which epoch it is, where they want to know: they may be others in every epoch."""
    if isinstance(images, FollowsEpochs):
        images.set_epoch(epoch)


@runtime_checkable
class FollowsEpochs(TypingProtocol):
    """Images that may be others in every epoch."""

    def set_epoch(self, epoch: int, /) -> None:
        """Give the images of an epoch."""


class TensorImages(Dataset[tuple[torch.Tensor, int]]):
    """Images in memory.

    Args:
        images: (N, C, H, W), uint8.
        targets: (N,), int64.
        classes: Class names, by label.
    """

    def __init__(self, images: torch.Tensor, targets: torch.Tensor, classes: list[str]) -> None:
        self.images, self.classes = images, classes
        self.targets: list[int] = targets.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], self.targets[index]


class ShufflePatches(nn.Module):
    """Put the `side` x `side` patches of an image in a random order. Source: RDED (Sun et al., 2024)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image (C, H, W) whose sides `side` divides, with its patches shuffled."""
        rows = [part for row in image.chunk(self.side, dim=-2) for part in row.chunk(self.side, dim=-1)]
        order = torch.randperm(len(rows)).tolist()
        shuffled = [rows[position] for position in order]
        lines = [torch.cat(shuffled[i : i + self.side], dim=-1) for i in range(0, len(rows), self.side)]
        return torch.cat(lines, dim=-2)


class Lighting(nn.Module):
    """Add noise along the principal components of RGB values. Source: AlexNet (Krizhevsky et al., 2012)."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return a float image (3, H, W) with the same noise on every pixel."""
        weights = torch.randn(3) * self.std * torch.tensor(PCA_VALUES)
        return image + (torch.tensor(PCA_VECTORS) @ weights)[:, None, None]


def train_transform(protocol: Protocol) -> v2.Compose:
    """Return what a student sees of a PIL image or uint8 tensor: a float tensor in [0, 1]."""
    size = protocol.image_size
    steps: list[Any] = [v2.ToImage()]
    if protocol.shuffle_patches > 1:
        steps.append(ShufflePatches(protocol.shuffle_patches))
    if protocol.center_first or not protocol.crop_scale:
        steps += [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    if protocol.crop_scale:
        low, high = protocol.crop_scale
        steps.append(v2.RandomResizedCrop((size, size), (low, high), antialias=True))
    if protocol.random_crop:
        steps.append(v2.RandomCrop(size, protocol.random_crop))
    if protocol.flip:
        steps.append(v2.RandomHorizontalFlip())
    steps.append(v2.ToDtype(torch.float32, scale=True))
    if protocol.color_jitter:
        steps.append(v2.ColorJitter(*[protocol.color_jitter] * 3))
    if protocol.lighting:
        steps.append(Lighting(protocol.lighting))
    return v2.Compose([*steps, v2.ToPureTensor()])


def evaluation_transform(protocol: Protocol) -> v2.Compose:
    """Return what a student is tested on: resized to `resize`, centre-cropped, a float tensor in [0, 1]."""
    size = protocol.image_size
    resize = [v2.Resize(protocol.resize or size, antialias=True), v2.CenterCrop(size)]
    return v2.Compose([v2.ToImage(), *resize, v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])


class Views(Dataset[tuple[torch.Tensor, int, int]]):
    """Views of a data set, asked for by (index, seed): (view, label, index)."""

    def __init__(self, images: Images, transform: v2.Compose) -> None:
        self.images, self.transform = images, transform

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int, int]:
        index, seed = item
        image, label = self.images[index]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.transform(image), int(label), index


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (index, seed of the view) of one epoch, in an order that seed and epoch decide.

    Args:
        count: Images of the data set.
        batch_size: Images a batch over all processes; the last batch has what is left.
        seed: Of all epochs.
        rank: Which share of every batch is this process's.
        world_size: How many processes share a batch.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.count, self.batch_size, self.seed = count, min(batch_size, count), seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(self.count, generator=generator)
        seeds = torch.randint(2**62, (self.count,), generator=generator)
        for batch in order.split(self.batch_size):
            # With fewer images than processes, some are seen twice: every process takes part in a step.
            padded = batch.repeat(math.ceil(self.world_size / len(batch)))
            mine = padded[self.rank :: self.world_size]
            yield list(zip(mine.tolist(), seeds[mine].tolist(), strict=True))


def normalize(protocol: Protocol, images: torch.Tensor) -> torch.Tensor:
    """Return images (B, C, H, W) in [0, 1] as the student takes them."""
    mean, std = (torch.tensor(values).to(images)[:, None, None] for values in (protocol.mean, protocol.std))
    return (images - mean) / std


def normalized(protocol: Protocol, model: nn.Module) -> Network:
    """Return a student as a function of images in [0, 1]."""
    return lambda images: model(normalize(protocol, images))


def dsa_augment(images: torch.Tensor, *, shared: bool = False) -> torch.Tensor:
    """Return normalised images (B, C, H, W) after one of DSA's six augmentations, drawn for the batch.

    Source: DSA (Zhao & Bilen, 2021): colour, crop, cutout, flip, scale or rotation, with the strengths of
    its public code; the parameters are drawn for each image. Gradients go through it.

    Args:
        images: Normalised images.
        shared: Draw one set of parameters for all images. Two batches, of any sizes, are then augmented alike
            if PyTorch's generator is in the same state before each.
    """
    number, _, height, width = images.shape
    drawn = 1 if shared else number

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (torch.rand(drawn, *shape) * (high - low) + low).to(images)

    choice = int(torch.randint(6, ()))
    if choice == 0:  # colour: brightness, saturation, contrast
        images = images + uniform(-0.5, 0.5, 1, 1, 1)
        grey = images.mean(dim=1, keepdim=True)
        images = (images - grey) * uniform(0, 2, 1, 1, 1) + grey
        middle = images.mean(dim=(1, 2, 3), keepdim=True)
        return (images - middle) * uniform(0.5, 1.5, 1, 1, 1) + middle
    if choice == 1:  # a shift of up to an eighth of the side, filled with zeros
        shift = int(height * 0.125 + 0.5)
        offsets = torch.randint(2 * shift + 1, (drawn, 2)).expand(number, 2).tolist()
        padded = F.pad(images, [shift] * 4)
        return torch.stack(
            [image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets, strict=True)]
        )
    if choice == 2:  # a square of half the side around a random centre becomes zero
        half = int(height * 0.5 + 0.5) / 2
        rows, columns = torch.arange(height).to(images) + 0.5, torch.arange(width).to(images) + 0.5
        y, x = uniform(0, height, 1).round(), uniform(0, width, 1).round()
        keep_rows, keep_columns = (rows - y).abs() > half, (columns - x).abs() > half
        return images * (keep_rows[:, None, :, None] | keep_columns[:, None, None, :])
    if choice == 3:
        return torch.where(uniform(0, 1, 1, 1, 1) < 0.5, images.flip(3), images)
    matrix = torch.zeros(number, 2, 3).to(images)
    if choice == 4:  # scale of each axis
        matrix[:, 0, 0], matrix[:, 1, 1] = uniform(1 / 1.2, 1.2), uniform(1 / 1.2, 1.2)
    else:  # rotation of up to 15 degrees
        angle = uniform(-15, 15) * torch.pi / 180
        matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
        matrix[:, 0, 1], matrix[:, 1, 0] = -angle.sin(), angle.sin()
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
