"""Seek modes in many latents, and print the peak of memory as JSON.

    python -m recipes.evaluate.modes_once LATENTS NUMBER known FOLDER

A process of its own for each number of images: `recipes.evaluate.modes` starts them. The images stand for
latents of a file, repeated and jittered; each is a picture of its number, and what stands for the encoder
looks its latent up. All else is what a build does with a stream of shards: one that says how many images it
has ("known"), or not ("unknown"). Writes FOLDER/centroids.safetensors.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from d3hr_datasets import ArtifactInfo, DecodeConfig, InversionConfig, ModelReference
from d3hr_datasets.build.joined_processes import join_processes
from d3hr_datasets.build.mode_latents import ModeLatents
from d3hr_datasets.build.mode_search import find_modes
from d3hr_datasets.config.defaults import BUILD_BATCH_SIZE, CHUNK_SIZE, NUM_READERS
from d3hr_datasets.sources.records import ImageRecord
from d3hr_datasets.sources.user_datasets import as_images

SHARDS = 10
JITTER = 0.1  # of the standard deviation of the latents
DIGITS = 4  # bytes of a number, each a pixel


class JitteredLatents:
    """Latents (N, C, H, W) with labels (N,), over and over; each copy but the first has noise of its own."""

    def __init__(self, path: str | Path) -> None:
        found = load_file(path)
        self.latents, self.labels = found["latents"], found["labels"]
        self.scale = JITTER * float(self.latents.std())

    def __getitem__(self, number: int) -> torch.Tensor:
        copy, place = divmod(number, len(self.latents))
        latent = self.latents[place]
        if copy == 0:
            return latent
        generator = torch.Generator().manual_seed(number)
        return latent + self.scale * torch.randn(latent.shape, generator=generator)

    def label(self, number: int) -> int:
        """Return the label of a latent."""
        return int(self.labels[number % len(self.labels)])

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the latents of pictures of numbers, (B, 1, 2, 2) in [-1, 1]."""
        digits = ((images.flatten(1) + 1) * 127.5).round().to(torch.int64)
        numbers = (digits * torch.tensor([256**place for place in range(DIGITS)])).sum(dim=1)
        return torch.stack([self[number] for number in numbers.tolist()])


class Numbered:
    """A stream of pictures of numbers."""

    def __init__(self, latents: JitteredLatents, number: int, known: bool) -> None:
        self.latents = latents
        self.number = number
        self.num_shards = SHARDS
        self.num_images = number if known else None

    def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
        """Yield the images of a shard from number `start` on."""
        for number in range(shard + start * SHARDS, self.number, SHARDS):
            yield ImageRecord(str(number), str(number), partial(self._read, number))

    def _read(self, number: int) -> tuple[Image.Image, int]:
        digits = np.frombuffer(number.to_bytes(DIGITS, "little"), dtype=np.uint8)
        return Image.fromarray(digits.reshape(2, 2)), self.latents.label(number)


def measure(path: Path, number: int, known: bool, folder: Path, num_modes: int = 50) -> dict[str, Any]:
    """Seek modes in latents; return the peak of this process before and after in MiB, and the time."""
    torch.set_num_threads(1)
    latents = JitteredLatents(path)
    channels, height, width = latents.latents.shape[1:]
    info = ArtifactInfo(
        name="modes",
        classes=tuple(map(str, range(int(latents.labels.max()) + 1))),
        image_size=2,
        image_mode="L",
        padding=0,
        latent_shape=(channels, height, width),
        model=ModelReference(path="model"),
        inversion=InversionConfig((200,), num_inference_steps=5),
        decode=DecodeConfig(200, 5),
        num_modes=num_modes,
    )
    images = as_images(Numbered(latents, number, known))
    sizes = (BUILD_BATCH_SIZE, CHUNK_SIZE, 0, NUM_READERS)
    processes = join_processes()
    before, begin = _peak(), time.perf_counter()
    model: Any = latents
    centroids = find_modes(ModeLatents(images, model, info, folder / "key", *sizes), processes)
    seconds = time.perf_counter() - begin
    save_file({"centroids": centroids}, folder / "centroids.safetensors")
    return {"images": number, "before_mib": before, "peak_mib": _peak(), "seconds": seconds}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    path, number, known, folder, *num_modes = sys.argv[1:]
    measured = measure(Path(path), int(number), known == "known", Path(folder), *map(int, num_modes))
    print(json.dumps(measured))
