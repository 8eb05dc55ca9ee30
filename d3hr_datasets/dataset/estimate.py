"""What it would cost to generate a set: forward passes, time, memory and disk, of a few batches.

Nothing is written: what the batches make is thrown away.
"""

from __future__ import annotations

import io
import time
from pathlib import Path

import torch

from d3hr_datasets.config.defaults import BATCH_CLASSES
from d3hr_datasets.dataset.batches import BatchSize
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.dataset.image_generator import ImageGenerator
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.devices import advice_on_memory
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
        batch_size: Images in the model at a time; None for those that `BatchSize` begins with: on CUDA the
            run may go on with more, where memory holds them.
        torch_compile: Whether the model is compiled, which takes a minute that is not counted.
        patience: Seconds after which batches are large enough.

    Raises:
        ConfigError: Not even one image fits into memory.
    """
    missing = [label for label in range(len(dataset.classes)) if not dataset.cache.is_complete(label)]
    label = missing[0] if missing else 0
    model = _load(dataset, torch_compile)
    settings = dataset.ipc, dataset.sampling, dataset.decode, dataset.nested, dataset.torch_dtype
    generator = ImageGenerator(dataset.artifact, dataset.class_labels, *settings, dataset.epoch)
    generator.latents(label)  # opens the statistics
    start = time.perf_counter()
    latents = generator.latents(label)
    drawing = (time.perf_counter() - start) / len(latents)
    denoised = _made(generator, missing, dataset.cache.root)
    kept = sum(denoised.values())
    sizes: list[float] = []

    def work(size: int) -> None:
        group = latents.repeat(-(-size // len(latents)), 1, 1, 1)[:size]
        labels = dataset.class_labels[label].repeat(size)
        clean = model.denoise(group, labels, dataset.decode, size)
        sizes.append(_png_bytes(model.decode(clean, size), dataset.artifact.info.padding) / size)

    # Batches go across classes, and across blocks of a nested set.
    images = sum(sorted(denoised.values(), reverse=True)[:BATCH_CLASSES])
    together = min(BatchSize(batch_size, model.device).value, max(1, images))
    try:
        measured = measure_cost(work, together, model.device, patience)
    except torch.OutOfMemoryError as error:
        advice = advice_on_memory(not model.placement.is_offloaded)
        raise ConfigError(f"not even one image at a time fits into memory; {advice}") from error
    processes = process_share()[1]
    return Estimate(
        "generated; the others are cached" if kept < len(dataset) else "generated",
        len(dataset),
        kept,
        kept,
        model.forward_passes(dataset.decode),
        measured,
        processes,
        measured.seconds_per_image + drawing,
        disk_bytes={"PNG files": round(sizes[-1] * len(missing) * dataset.ipc)},
        largest_share=_largest_share(denoised, processes),
    )


def _load(dataset: D3HRDataset, torch_compile: bool) -> LatentDiffusion:
    with torch.random.fork_rng(devices=[]):  # diffusers draws weights before it reads them
        model = dataset.model()
        if torch_compile:
            model.compile()
    return model


def _made(generator: ImageGenerator, missing: list[int], root: Path) -> dict[int, int]:
    """Return how many images are made, by label: of a nested set, those at another size are copied."""
    numbers = {label: generator.ipc - len(generator.copied(label, root)) for label in missing}
    return {label: number for label, number in numbers.items() if number > 0}


def _largest_share(denoised: dict[int, int], processes: int) -> float:
    """Return the share of the process that has most to denoise: it has whole classes."""
    of_process = [0] * processes
    for label, number in denoised.items():
        of_process[label % processes] += number
    return max(of_process) / max(1, sum(of_process))


def _png_bytes(images: torch.Tensor, padding: int) -> int:
    """Return the bytes of images as the cache stores them."""
    number = 0
    for image in to_pil(images, padding):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        number += len(buffer.getvalue())
    return number
