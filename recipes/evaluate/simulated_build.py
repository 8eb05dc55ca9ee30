"""A build on many machines, on paper: the real chunks and their files, made by a model that only tells time.

What is divided, what a killed process finds again and what is merged is the library's own code. What is not
real is the clock, and the images: one stands for all of a chunk.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from d3hr_datasets import ArtifactInfo, DecodeConfig, InversionConfig, ModelReference
from d3hr_datasets.build.chunk_builder import ChunkBuilder
from d3hr_datasets.build.merged_moments import MergedMoments
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.sources.records import IndexedImages
from recipes.common.errors import RecipeError

TIMESTEP = 400
ATTEMPTS = 2000  # after so many failures a build is taken never to end


@dataclass(frozen=True)
class Work:
    """What is to be built.

    Args:
        images: How many.
        chunk_size: Images in a chunk.
        image_bytes: Of a file, on average.
        chunk_bytes: Of the file of a finished chunk.
        search_images: What the search for modes takes, in images that are inverted.
        merge_reads: How often the merge reads all chunks.
    """

    images: int
    chunk_size: int
    image_bytes: float
    chunk_bytes: float
    search_images: float = 0.0
    merge_reads: int = 1

    @property
    def num_chunks(self) -> int:
        """Chunks, all of the same size here."""
        return -(-self.images // self.chunk_size)


@dataclass(frozen=True)
class Cluster:
    """What it is built on.

    Args:
        workers: Processes.
        images_per_second: Of one of them, while nothing keeps it waiting.
        hours_between_failures: Of one of them, on average; None if none ever fails. One that fails makes the
            launcher start all of them again.
        slow_share: Share of the processes that are slow.
        slow_speed: How fast these are, of 1.
        storage_bytes_per_second: What the storage gives to all of them together.
        start_seconds: From the start, and from a failure, until all have their model.
        seed: Of failures, and of which are slow.
    """

    workers: int
    images_per_second: float
    hours_between_failures: float | None = None
    slow_share: float = 0.0
    slow_speed: float = 0.5
    storage_bytes_per_second: float = float("inf")
    start_seconds: float = 180.0
    seed: int = 0


@dataclass
class Outcome:
    """How a simulated build went.

    Args:
        hours: From start to artifact.
        efficiency: Hours that the images ask for, of all hours of all workers.
        failures: How often all were started again.
        lost_share: Work that was begun and lost, of all hours of all workers.
        seconds_to_recover: From a failure until each worker is at new work again, on average; None without.
        merge_seconds: Reading all chunks, by one process, while the others wait.
        images: Images in the merged chunks.
    """

    hours: float
    efficiency: float
    failures: int
    lost_share: float
    seconds_to_recover: float | None
    merge_seconds: float
    images: int


class StoppedError(Exception):
    """A worker is at a chunk when all are stopped."""


@dataclass
class Clock:
    """The time of one worker, in seconds.

    Args:
        chunk_seconds: What making a chunk takes it.
        now: What time it is.
        stop: When all are stopped.
        busy: Whether it has made the chunk that it was last asked for, and not found it.
    """

    chunk_seconds: float
    now: float = 0.0
    stop: float = float("inf")
    busy: bool = field(default=False, init=False)

    def work(self) -> None:
        """Let the time of a chunk pass.

        Raises:
            StoppedError: The worker is stopped before its end.
        """
        if self.now + self.chunk_seconds > self.stop:
            raise StoppedError
        self.now += self.chunk_seconds
        self.busy = True


class TimedModel(LatentDiffusion):
    """A model that makes nothing of an image but the time that a chunk of them takes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def encode(self, images: torch.Tensor, generators: object = None) -> torch.Tensor:
        """Return the first pixel of images (B, C, H, W) as latents (B, 1, 1, 1)."""
        return images[:, :1, :1, :1].float()

    def invert(
        self, latents: torch.Tensor, class_labels: torch.Tensor, inversion: InversionConfig
    ) -> dict[float, torch.Tensor]:
        """Return the latents, after the time that a chunk takes."""
        self.clock.work()
        return {TIMESTEP: latents}


def simulate(work: Work, cluster: Cluster, folder: Path) -> Outcome:
    """Build on paper.

    Args:
        work: What.
        cluster: On what.
        folder: An empty folder for the chunks' files.

    Raises:
        RecipeError: It fails more often than it gets on.
    """
    chance = random.Random(cluster.seed)
    made = _seconds_of_chunk(work, cluster)
    slow = set(chance.sample(range(cluster.workers), math.ceil(cluster.slow_share * cluster.workers)))
    clocks = [Clock(made / (cluster.slow_speed if rank in slow else 1)) for rank in range(cluster.workers)]
    written = work.chunk_bytes * cluster.workers / cluster.storage_bytes_per_second
    search = work.search_images / cluster.images_per_second / cluster.workers  # its files stay, too
    start, lost, recoveries = cluster.start_seconds + search, 0.0, []
    for attempt in range(ATTEMPTS):
        stop = start + _until_failure(chance, cluster)
        again = []
        for rank, clock in enumerate(clocks):
            clock.now, clock.stop = start, stop
            finished, at_work, begun = _run(rank, clock, work, cluster, folder, written)
            again.append(at_work - start)
            if not finished:
                lost += stop - begun
        if attempt > 0:
            recoveries.append(cluster.start_seconds + sum(again) / len(again))
        end = max(clock.now for clock in clocks)
        if end <= stop:
            break
        start = stop + cluster.start_seconds
    else:
        raise RecipeError(f"{ATTEMPTS} failures did not let {work} end on {cluster}; use smaller chunks")
    merge = work.merge_reads * work.num_chunks * work.chunk_bytes / cluster.storage_bytes_per_second
    all_seconds = (end + merge) * cluster.workers
    return Outcome(
        hours=(end + merge) / 3600,
        efficiency=work.images / cluster.images_per_second / all_seconds,
        failures=len(recoveries),
        lost_share=lost / all_seconds,
        seconds_to_recover=sum(recoveries) / len(recoveries) if recoveries else None,
        merge_seconds=merge,
        images=_merged(work, folder),
    )


def _seconds_of_chunk(work: Work, cluster: Cluster) -> float:
    """Return what a chunk takes a worker that is not slow: its images, or reading them, and its file."""
    share = cluster.storage_bytes_per_second / cluster.workers
    of_image = max(1 / cluster.images_per_second, work.image_bytes / share)
    return work.images / work.num_chunks * of_image + work.chunk_bytes / share


def _until_failure(chance: random.Random, cluster: Cluster) -> float:
    if cluster.hours_between_failures is None:
        return float("inf")
    return chance.expovariate(cluster.workers / (cluster.hours_between_failures * 3600))


def _run(
    rank: int, clock: Clock, work: Work, cluster: Cluster, folder: Path, reading: float
) -> tuple[bool, float, float]:
    """Let a worker make its share until all are stopped.

    Returns:
        Whether it came to its end; when it first was at new work, after it had read what there was; and when
        it began what it was at when it was stopped.
    """
    at_work: float | None = None
    clock.busy, begun = False, clock.now
    try:
        for _ in _builder(clock, work, folder).chunks(rank, cluster.workers):
            if not clock.busy:
                clock.now = min(clock.now + reading, clock.stop)
            elif at_work is None:
                at_work = begun
            clock.busy, begun = False, clock.now
    except StoppedError:
        clock.now = float("inf")
        return False, begun if at_work is None else at_work, begun
    return True, clock.now if at_work is None else at_work, begun


def _builder(clock: Clock, work: Work, folder: Path) -> ChunkBuilder:
    """Return the real thing over one image for each chunk."""
    pixel = Image.new("L", (8, 8), 128)
    images = IndexedImages(work.num_chunks, lambda number: (pixel, number % 2))
    info = ArtifactInfo(
        name="simulated",
        classes=("a", "b"),
        image_size=8,
        image_mode="L",
        padding=0,
        latent_shape=(1, 1, 1),
        model=ModelReference(path="model"),
        inversion=InversionConfig(timesteps=(TIMESTEP,)),
        decode=DecodeConfig(timestep=TIMESTEP),
        counts=(2, 2),
        source={"name": "none"},
    )
    return ChunkBuilder(images, TimedModel(clock), info, folder / "chunk", 1, 1, num_readers=1)


def _merged(work: Work, folder: Path) -> int:
    """Return how many images the merge finds, without making any."""
    clock = Clock(1.0, stop=0.0)  # a chunk that is missing stops it
    build = _builder(clock, work, folder)
    merged = MergedMoments(lambda: build.chunks(0, 1), build.info)
    for _ in merged:
        pass
    gaussians, _ = merged.statistics()
    return round(int(gaussians[TIMESTEP].count.sum()) * work.images / work.num_chunks)
