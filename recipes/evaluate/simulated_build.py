"""A build on many machines, on paper: the real chunks and their files, of workers that only tell time.

What is divided, what a killed process finds again and what is merged is the library's own code. What is not
real is the clock, and the images: one stands for all of a chunk.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from d3hr_datasets import ArtifactInfo, DecodeConfig, InversionConfig, ModelReference
from d3hr_datasets.build.chunk_builder import ChunkBuilder
from d3hr_datasets.build.merged_moments import MergedMoments
from d3hr_datasets.build.work_shares import share
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


class NoModel(LatentDiffusion):
    """A model that makes nothing of an image."""

    def __init__(self) -> None:
        pass

    def encode(self, images: torch.Tensor, generators: object = None) -> torch.Tensor:
        """Return the first pixel of images (B, C, H, W) as latents (B, 1, 1, 1)."""
        return images[:, :1, :1, :1].float()

    def invert(
        self, latents: torch.Tensor, class_labels: torch.Tensor, inversion: InversionConfig
    ) -> dict[float, torch.Tensor]:
        """Return the latents."""
        return {TIMESTEP: latents}


class Attempt:
    """All workers from a start until a failure, or until everything is made.

    A worker chooses its next chunk when it has finished one, by the library's code and the files that are
    there then. Its own file is there when its time is over. What another finishes meanwhile it gives up.

    Args:
        seconds: That each worker takes for a chunk.
        reading: Seconds that it takes to read a finished one.
        work: What is built.
        folder: Of the chunks' files.
        start: When all have their model.
        stop: When all are stopped.
    """

    def __init__(
        self, seconds: Sequence[float], reading: float, work: Work, folder: Path, start: float, stop: float
    ) -> None:
        self._seconds, self._reading, self._stop = seconds, reading, stop
        self.end, self.lost = start, 0.0
        self.at_work = [math.inf] * len(seconds)  # when each first is at new work
        self._build = _builder(work, folder)
        self._choices = [self._choose(work, rank) for rank in range(len(seconds))]
        self._events: list[tuple[float, int, float, int | None]] = []  # end, worker, begin, chunk
        for rank in range(len(seconds)):
            self._begin(rank, start)

    def run(self) -> bool:
        """Return whether all came to their end before they were stopped."""
        while self._events and self._events[0][0] <= self._stop:
            now, rank, _, number = heapq.heappop(self._events)
            self.end = max(self.end, now)
            freed = [rank]
            if number is not None:
                for _ in self._build.chunks_of(range(number, number + 1)):
                    pass
                freed += [other for _, other, _, same in self._events if same == number]
                self._events = [event for event in self._events if event[3] != number]
                heapq.heapify(self._events)
            for worker in freed:
                self._begin(worker, now)
        self.lost = sum(self._stop - begun for _, _, begun, number in self._events if number is not None)
        return not self._events

    def _begin(self, rank: int, now: float) -> None:
        for number, is_new in self._choices[rank]:
            if is_new:
                self.at_work[rank] = min(self.at_work[rank], now)
            takes = self._seconds[rank] if is_new else self._reading
            heapq.heappush(self._events, (now + takes, rank, now, number if is_new else None))
            return
        self.at_work[rank] = min(self.at_work[rank], now)

    def _choose(self, work: Work, rank: int) -> Iterator[tuple[int, bool]]:
        """Yield the chunks of a worker, as `d3hr build` goes through them, and whether each is to be made."""
        for number in share(work.num_chunks, 1, rank, len(self._seconds)):
            yield number, not self._build.is_finished(number)
        for number in self._build.left_over(rank, len(self._seconds)):
            yield number, True


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
    seconds = [made / (cluster.slow_speed if rank in slow else 1) for rank in range(cluster.workers)]
    reading = work.chunk_bytes * cluster.workers / cluster.storage_bytes_per_second
    search = work.search_images / cluster.images_per_second / cluster.workers  # its files stay, too
    start, lost, recoveries = cluster.start_seconds + search, 0.0, []
    for number in range(ATTEMPTS):
        stop = start + _until_failure(chance, cluster)
        attempt = Attempt(seconds, reading, work, folder, start, stop)
        is_done = attempt.run()
        lost += attempt.lost
        if number > 0:
            waited = [min(time, stop) - start for time in attempt.at_work]
            recoveries.append(cluster.start_seconds + sum(waited) / len(waited))
        if is_done:
            end = attempt.end
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


def _builder(work: Work, folder: Path) -> ChunkBuilder:
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
    return ChunkBuilder(images, NoModel(), info, folder / "chunk", 1, 1, num_readers=1)


def _merged(work: Work, folder: Path) -> int:
    """Return how many images the merge finds, without making any."""
    build = _builder(work, folder)
    missing = [number for number in range(work.num_chunks) if not build.is_finished(number)]
    if missing:
        raise RecipeError(f"{len(missing)} chunks were never made, the first is {missing[0]}")
    merged = MergedMoments(lambda: build.chunks(0, 1), build.info)
    for _ in merged:
        pass
    gaussians, _ = merged.statistics()
    return round(int(gaussians[TIMESTEP].count.sum()) * work.images / work.num_chunks)
