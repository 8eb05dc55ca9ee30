"""What a build would cost: a plan -> forward passes, time, memory and disk, of a few batches of its images.

Nothing is written. Chunks that an earlier build finished are not looked for: it is what all images cost.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from pathlib import Path
from statistics import median

import torch

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.moments_file import moments_bytes
from d3hr_datasets.build.early_stop import count_rounds, expected_images
from d3hr_datasets.build.merged_moments import MERGE_BYTES
from d3hr_datasets.build.mode_count import images_for_modes, share_for_modes
from d3hr_datasets.build.mode_points import HELD_PER_MODE
from d3hr_datasets.build.mode_search import GROUP_BYTES
from d3hr_datasets.build.model_facts import model_reference
from d3hr_datasets.build.planning import BuildPlan
from d3hr_datasets.build.reading_ahead import Item, read_record
from d3hr_datasets.config.defaults import BUILD_BATCH_SIZE, CHUNK_SIZE, NUM_READERS
from d3hr_datasets.diffusion.inversion import inversion_passes
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError, UnreadableImageError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.numerics.devices import advice_on_memory
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.runs.estimate import Estimate
from d3hr_datasets.runs.measured_cost import PATIENCE, measure_cost
from d3hr_datasets.sources.records import ImageRecord, Images

LOOKED_AT = 64  # images that are read; larger batches have some of them several times
DIGEST_BYTES = 32 + 8  # of an image in a finished chunk, where membership is noted
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}


@neutral()
def estimate_build(
    plan: BuildPlan,
    batch_size: int = BUILD_BATCH_SIZE,
    chunk_size: int = CHUNK_SIZE,
    *,
    num_readers: int = NUM_READERS,
    processes: int = 1,
    patience: float = PATIENCE,
) -> Estimate:
    """Invert a few batches, and say what the whole build would cost; nothing is written.

    Args:
        plan: The build.
        batch_size: Images per batch.
        chunk_size: Images per chunk.
        num_readers: Threads that read images.
        processes: How many share the work.
        patience: Seconds after which batches are large enough.

    Raises:
        ConfigError: Nobody knows how many images there are, or not even one fits into memory.
        UnreadableImageError: None of those that were looked at can be read.
    """
    info, model, total = plan.info, plan.diffusion, plan.images.num_images
    if total is None:
        raise ConfigError(
            "the stream does not say how many images it has, so nobody knows what all of them cost; estimate "
            "a build from a copy on disk, without --streaming"
        )
    least, most = expected_images(plan.images, info, plan.tolerance)
    from accelerate.utils.memory import should_reduce_batch_size  # as the build tells that memory ran out

    items, reading = _read(_some(plan.images, total), info)
    encoding: list[float] = []

    def work(size: int) -> None:
        encoding.append(_invert(model, info, list(itertools.islice(itertools.cycle(items), size))) / size)

    size = min(batch_size, chunk_size, total)
    try:
        measured = measure_cost(work, size, model.device, patience, should_reduce_batch_size)
    except torch.OutOfMemoryError as error:
        advice = advice_on_memory(not model.placement.is_offloaded)
        raise ConfigError(f"not even one image at a time fits into memory; {advice}") from error
    chosen = _looked_at(plan.images, info)
    return Estimate(
        "inverted",
        total,
        least,
        most,
        inversion_passes(model.denoiser, info.inversion),
        measured,
        processes,
        max(measured.seconds_per_image, reading / min(num_readers, os.cpu_count() or 1)),
        chosen * encoding[-1],
        max(_merged_bytes(info, plan.sums is not None), _modes_bytes(info, chosen)),
        _disk_bytes(plan, most, chunk_size, chosen),
        not_counted="without the clustering of modes" if chosen else "",
    )


def _some(images: Images, total: int) -> list[ImageRecord]:
    """Return a few images, at equal distances where there is random access."""
    number = min(LOOKED_AT, total)
    if not images.has_random_access:
        return list(itertools.islice(images.records(0, 0), number))
    return [next(images.records(0, place * total // number)) for place in range(number)]


def _read(records: list[ImageRecord], info: ArtifactInfo) -> tuple[list[Item], float]:
    """Return those images that can be read, and the seconds that one took."""
    items, seconds, problem = [], [], None
    for record in records:
        start = time.perf_counter()
        try:
            items.append(read_record(record, info))
        except UnreadableImageError as error:
            problem = error
        seconds.append(time.perf_counter() - start)
    if not items and problem is not None:
        raise problem
    return items, median(seconds)


def _invert(model: LatentDiffusion, info: ArtifactInfo, items: list[Item]) -> float:
    """Invert a batch, and return the seconds that encoding it took."""
    start = time.perf_counter()
    latents = model.encode(torch.stack([image for image, _ in items]))
    latents.cpu()  # waits for the device
    seconds = time.perf_counter() - start
    inverted = model.invert(latents, torch.tensor([label for _, label in items]), info.inversion)
    for one in inverted.values():
        one.cpu()
    return seconds


def _elements(info: ArtifactInfo) -> int:
    """Return the elements of a tensor of one number per class and latent element, at all timesteps."""
    return len(info.inversion.timesteps) * len(info.classes) * math.prod(info.latent_shape)


def _looked_at(images: Images, info: ArtifactInfo) -> int:
    """Return in how many images modes are sought."""
    if info.num_modes == 1:
        return 0
    if images.has_random_access:
        return len(images_for_modes(images, info))
    return math.ceil(share_for_modes(images, info) * (images.num_images or 0))


def _merged_bytes(info: ArtifactInfo, exact: bool) -> int:
    """Return the memory that merging takes: two numbers of 8 bytes, and one more when they are saved.

    Of many modes some classes are merged at a time, unless exact sums are stored. What is found of them, and
    where they were sought, is held besides. To decide which classes a tolerance leaves open takes no more.
    """
    merged = 24 * _elements(info) * info.num_modes
    if info.num_modes == 1:
        return merged
    if not exact:
        merged = min(merged, max(3 * MERGE_BYTES // 2, merged // len(info.classes)))
    held = BYTES["float32" if info.dtype == "int8" else info.dtype]  # int8 is made of all classes together
    stored = held * _elements(info) * info.num_modes
    return merged + stored + _centroid_bytes(info) + 32 * _elements(info)


def _centroid_bytes(info: ArtifactInfo) -> int:
    return 4 * len(info.classes) * info.num_modes * math.prod(info.latent_shape)


def _modes_bytes(info: ArtifactInfo, chosen: int) -> int:
    """Return the memory that the search for modes takes, see `mode_search`."""
    latent = 4 * math.prod(info.latent_shape)
    of_class = min(HELD_PER_MODE * info.num_modes, -(-chosen // len(info.classes))) * latent
    clustered = min(chosen * latent, max(GROUP_BYTES, of_class)) + 4 * of_class
    return max(clustered, 2 * _centroid_bytes(info)) if info.num_modes > 1 else 0


def _disk_bytes(plan: BuildPlan, images: int, chunk_size: int, for_modes: int) -> dict[str, int]:
    """Return what is written, by what it is."""
    info, elements = plan.info, _elements(plan.info)
    tensors = 2 + (info.num_modes + 1 if info.num_modes > 1 else 0)
    found = {"statistics": BYTES[info.dtype] * elements * tensors}
    if model_reference(plan.model).path is not None:
        found["copy of the model"] = _folder_bytes(expand_user(plan.model))
    if plan.adapter is not None:
        found["copy of the adapter"] = _folder_bytes(plan.adapter)
    if plan.sums is not None:
        found["sums"] = moments_bytes(info)
    if for_modes:
        found["latents to seek modes in, meanwhile"] = 4 * math.prod(info.latent_shape) * for_modes
        found["centroids of modes, meanwhile"] = 2 * _centroid_bytes(info)  # of each class, and of all
    chunks = math.ceil(images / chunk_size)
    if plan.tolerance is not None:  # each round ends in a chunk of its own
        chunks += count_rounds(plan.images, info, plan.tolerance) - 1
    rows = min(chunk_size, len(info.classes) * info.num_modes)
    found["finished chunks at most"] = chunks * rows * 16 * elements // len(info.classes)
    if plan.sums is not None and plan.sums.membership is not None:
        found["finished chunks at most"] += DIGEST_BYTES * images
        found["membership"] = (DIGEST_BYTES + 16) * images
    return found


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
