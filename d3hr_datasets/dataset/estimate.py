"""What it would cost to generate a set: forward passes, time, memory and disk, of a few batches.

Nothing is written: what the batches make is thrown away.
"""

from __future__ import annotations

import io
import time

import torch

from d3hr_datasets.config.defaults import BATCH_CLASSES, BATCH_SIZE
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.processes import process_share
from d3hr_datasets.runs.estimate import Estimate
from d3hr_datasets.runs.measured_cost import PATIENCE, measure_cost


@neutral()
def estimate_set(
    dataset: D3HRDataset,
    batch_size: int | None = None,
    torch_compile: bool = False,
    *,
    patience: float = PATIENCE,
) -> Estimate:
    """Generate a few batches, and say what `dataset.materialize` would cost of what is not cached.

    Args:
        dataset: The set.
        batch_size: Images in the model at a time; None for `BATCH_SIZE`, which CUDA may have more than.
        torch_compile: Whether the model is compiled, which takes a minute that is not counted.
        patience: Seconds after which batches are large enough.

    Raises:
        ConfigError: Not even one image fits into memory.
    """
    missing = [label for label in range(len(dataset.classes)) if not dataset.cache.is_complete(label)]
    label = missing[0] if missing else 0
    with torch.random.fork_rng(devices=[]):  # diffusers draws weights before it reads them
        model = dataset.model()
        if torch_compile:
            model.compile()
    dataset.sample_latents(label)  # opens the statistics
    start = time.perf_counter()
    latents = dataset.sample_latents(label)
    drawing = (time.perf_counter() - start) / dataset.ipc
    sizes: list[float] = []

    def work(size: int) -> None:
        group = latents.repeat(-(-size // len(latents)), 1, 1, 1)[:size]
        labels = dataset.class_labels[label].repeat(size)
        clean = model.denoise(group, labels, dataset.decode, size)
        sizes.append(_png_bytes(model.decode(clean, size), dataset.artifact.info.padding) / size)

    classes = min(max(1, len(missing)), BATCH_CLASSES)
    together = min(batch_size or BATCH_SIZE, classes * dataset.ipc)
    try:
        measured = measure_cost(work, together, model.device, patience)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            "not even one image at a time fits into memory; use a device with more, or --dtype bfloat16"
        ) from error
    number = len(missing) * dataset.ipc
    return Estimate(
        "generated; the others are cached" if number < len(dataset) else "generated",
        len(dataset),
        number,
        number,
        model.forward_passes(dataset.decode),
        measured,
        process_share()[1],
        measured.seconds_per_image + drawing,
        disk_bytes={"PNG files": round(sizes[-1] * number)},
    )


def _png_bytes(images: torch.Tensor, padding: int) -> int:
    """Return the bytes of images as the cache stores them."""
    number = 0
    for image in to_pil(images, padding):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        number += len(buffer.getvalue())
    return number
