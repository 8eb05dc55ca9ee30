"""The work of a build: records of images -> chunks of moments, read from their files where they are finished.

Chunks are cut and named by shard and first image alone, so that any process may make any of them.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.info_texts import MAX_TEXT
from d3hr_datasets.artifact.membership import member_digest
from d3hr_datasets.build.chunks import (
    Chunk,
    ChunkMoments,
    Moments,
    digest_tensors,
    read_chunk,
    write_chunk,
)
from d3hr_datasets.build.clustering import nearest_mode
from d3hr_datasets.build.exact_moments import ExactMoments
from d3hr_datasets.build.moments import RunningMoments
from d3hr_datasets.build.reading_ahead import Item, Relay, halve_on_out_of_memory, image_digest
from d3hr_datasets.build.work_shares import MadeElsewhereError, left_over, share, until_made
from d3hr_datasets.config.defaults import NUM_READERS
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import UnreadableImageError
from d3hr_datasets.io.text import printable
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.privacy.clipping import clip_latents
from d3hr_datasets.sources.records import ImageRecord, Images
from d3hr_datasets.sources.resizing import reason_of
from d3hr_datasets.sources.stream_reader import StreamReader

logger = logging.getLogger(__name__)


class ChunkBuilder:
    """Makes the chunks of a build.

    Args:
        images: Where the images come from.
        model: The diffusion model.
        info: Image size, classes, inversion, modes; with privacy, latents are clipped and added up exactly.
        prefix: Folder and first part of the names of the chunks' files.
        batch_size: Images per batch; halved as often as memory runs out.
        chunk_size: Images per chunk.
        skip_unreadable: Images that may be left out.
        num_readers: Threads that read.
        centroids: (K, M, C, H, W), where there are modes.
        exact: Add up in whole numbers.
        membership_key: Note each image by a digest with this key.
    """

    def __init__(
        self,
        images: Images,
        model: LatentDiffusion,
        info: ArtifactInfo,
        prefix: Path,
        batch_size: int,
        chunk_size: int,
        skip_unreadable: int = 0,
        num_readers: int = NUM_READERS,
        centroids: torch.Tensor | None = None,
        exact: bool = False,
        membership_key: bytes | None = None,
    ) -> None:
        self.images = images
        # Where chunks end is known of images with random access alone: a stream ends where it ends.
        self._num_images = images.num_images if images.has_random_access else None
        self._numbers: Sequence[int] | None = None  # of the images, where they are some of them
        self.model, self.info, self.prefix = model, info, prefix
        self.chunk_size, self.skip_unreadable = chunk_size, skip_unreadable
        self._relay, self._later = Relay(info, num_readers), range(0)  # chunks of its share that come next
        self._centroids = centroids
        self._modes = "" if centroids is None else digest_tensors({"centroids": centroids})
        exact |= info.privacy is not None
        self.moments: type[Moments] = ExactMoments if exact else RunningMoments
        self.membership_key, self.batch_size, self._num_unreadable = membership_key, batch_size, 0
        self._invert = halve_on_out_of_memory(self._invert_records, batch_size, model)
        self._reader = StreamReader(images)

    def of_some(self, numbers: Sequence[int], prefix: Path) -> ChunkBuilder:
        """Return what makes the chunks of some of the images, in this order, where there is random access."""
        some = copy.copy(self)
        some._numbers, some._num_images, some.prefix = numbers, len(numbers), prefix
        some._relay = copy.copy(self._relay)
        some._invert = halve_on_out_of_memory(some._invert_records, self.batch_size, self.model)
        return some

    @property
    def num_images(self) -> int | None:
        """Number of images; None of a stream where nobody knows it."""
        return self.images.num_images if self._numbers is None else len(self._numbers)

    def chunks(
        self, rank: int, num_processes: int, advance: Callable[[int], None] = lambda number: None
    ) -> Iterator[Chunk]:
        """Yield the chunks of one of several processes in their order, made where they are missing.

        A process has every so manieth shard of a stream, or chunk where there are fewer shards.

        Args:
            rank: 0 to `num_processes` - 1.
            num_processes: How many share the work.
            advance: Called with the number of images of each batch, and with 0 at a chunk's end.

        Raises:
            UnreadableImageError: This process has found more images than may be left out.
        """
        many = self.images.num_shards >= num_processes
        self._num_unreadable = 0
        if self._num_images is not None:
            own = share(self._num_images, self.chunk_size, rank, num_processes)
            with contextlib.closing(self._relay):
                for place, start in enumerate(own):
                    self._later = own[place + 1 :]
                    yield self._own(start, advance)
            return
        for shard in range(self.images.num_shards):
            for number in itertools.count():
                if (shard if many else shard + number) % num_processes != rank:
                    if many:
                        break
                    continue
                chunk = self._counted(shard, number * self.chunk_size, advance)
                yield chunk
                if chunk.last:
                    break

    def make_left_over(
        self, rank: int, num_processes: int, advance: Callable[[int], None] = lambda number: None
    ) -> None:
        """Make what other processes have not come to yet, where there is random access; as `chunks`."""
        for start in self.left_over(rank, num_processes):
            with contextlib.suppress(MadeElsewhereError):
                self._counted(0, start, until_made(start, self.is_finished, advance))

    def left_over(self, rank: int, num_processes: int) -> Iterator[int]:
        """Yield the first image of chunks of others that are missing when asked for; none of a stream."""
        size = 0 if self._num_images is None else self._num_images
        return left_over(size, self.chunk_size, rank, num_processes, self.is_finished)

    def is_finished(self, start: int) -> bool:
        """Return whether the chunk that begins at an image has a file, where there is random access."""
        return self._path(0, start).exists()

    def chunks_of(self, places: range) -> Iterator[Chunk]:
        """Yield the chunks that have images at some places, one shard's, in their order; as `chunks`."""
        first = places.start // self.chunk_size * self.chunk_size
        for start in range(first, places.stop, self.chunk_size) if places else ():
            yield self._chunk(0, start, lambda number: None)

    def count_finished(self) -> int:
        """Return the number of images in finished chunks, by the names of the files."""
        number = 0
        for path in self.prefix.parent.glob(f"{self.prefix.name}-*[0-9].safetensors"):
            size = self.chunk_size
            if self._num_images is not None:
                size = min(size, self._num_images - int(path.stem.rsplit("-", 1)[1]))
            number += size
        return number

    def _own(self, start: int, advance: Callable[[int], None]) -> Chunk:
        """Return a chunk of this process's share; what a helper finishes meanwhile is given up, and read."""
        if not self.is_finished(start):  # what is there and damaged is made to its end
            with contextlib.suppress(MadeElsewhereError):
                return self._counted(0, start, until_made(start, self.is_finished, advance))
        return self._counted(0, start, advance)

    def _counted(self, shard: int, start: int, advance: Callable[[int], None]) -> Chunk:
        """Return a chunk, and count the images that it leaves out."""
        chunk = self._chunk(shard, start, advance)
        self._num_unreadable += len(chunk.unreadable)
        return chunk

    def _path(self, shard: int, start: int) -> Path:
        shard_name = f"-{shard:05d}" if self._num_images is None else ""
        return self.prefix.with_name(f"{self.prefix.name}{shard_name}-{start:09d}.safetensors")

    def _chunk(self, shard: int, start: int, advance: Callable[[int], None]) -> Chunk:
        stop = start + self.chunk_size
        if self._num_images is not None:
            stop = min(stop, self._num_images)
        numbers = self._image_numbers(range(start, stop))
        identity = self.images.identity_of(numbers) + self._modes
        if self._numbers is not None:
            identity += hashlib.sha256(str(numbers).encode()).hexdigest()
        path = self._path(shard, start)
        chunk = read_chunk(path, self.info.inversion.timesteps, identity, self.moments)
        if chunk is None and path.exists():
            logger.warning("%s is damaged or of files that have changed since: it is made anew", path)
        if chunk is None or (chunk.unreadable and not self.skip_unreadable):
            records = self._take(shard, start)
            made = self._invert(records, shard, start, advance)
            chunk = dataclasses.replace(made, last=len(records) < self.chunk_size, identity=identity)
            write_chunk(path, chunk, private=self.info.privacy is not None)
            advance(0)
        return chunk

    def _image_numbers(self, places: Sequence[int]) -> Sequence[int]:
        """Return the number of the image at each place: the same, unless these are some of the images."""
        return places if self._numbers is None else [self._numbers[place] for place in places]

    def _take(self, shard: int, start: int) -> list[ImageRecord]:
        """Return the records of a chunk."""
        if self._numbers is not None:
            numbers = self._numbers[start : start + self.chunk_size]
            return [next(self.images.records(shard, number)) for number in numbers]
        if self.images.has_random_access:
            return list(itertools.islice(self.images.records(shard, start), self.chunk_size))
        return self._reader.take(shard, start, self.chunk_size)

    def _following(self) -> tuple[int, list[ImageRecord]] | None:
        """Return the first image of the chunk that is made next, and its records."""
        start = next((start for start in self._later if not self.is_finished(start)), None)
        return None if start is None else (start, self._take(0, start))

    def _invert_records(
        self,
        batch_size: int,
        records: Sequence[ImageRecord],
        shard: int,
        start: int,
        advance: Callable[[int], None],
    ) -> Chunk:
        info, pixels, number = self.info, 0, start
        unreadable: list[dict[str, str]] = []
        members: list[tuple[bytes, int]] = []
        size = min(len(records), len(info.classes) * info.num_modes)
        moments = ChunkMoments(info.inversion.timesteps, size, info.latent_shape, self.moments)
        advance(0)
        for batch in self._relay.batches(start, records, batch_size, self._following):
            items, numbers = [], []
            for offset, (record, future) in enumerate(batch):
                try:
                    items.append(future.result())
                    numbers.append(number + offset)
                except UnreadableImageError as error:
                    # What becomes part of the description has to be accepted there.
                    reason = printable(reason_of(error.__cause__ or error))[:MAX_TEXT]
                    unreadable.append({"image": printable(record.name)[:MAX_TEXT], "reason": reason})
                    self._check_unreadable(len(unreadable), error)
            if items:
                pixels += sum(image_digest(image, label) for image, label in items)
                latents, rows = self._invert_batch(items, shard, self._image_numbers(numbers))
                moments.update(latents, rows)
                members += self._members(items, rows)
            number += len(batch)
            advance(len(batch))
        return Chunk(*moments.rows(), pixels % 2**256, unreadable=unreadable, members=members)

    def _members(self, items: Sequence[Item], rows: torch.Tensor) -> list[tuple[bytes, int]]:
        """Return what membership notes of images, nothing where it notes none."""
        if self.membership_key is None:
            return []
        digests = [member_digest(self.membership_key, image) for image, _ in items]
        return list(zip(digests, rows.tolist(), strict=True))

    def _invert_batch(
        self, items: Sequence[Item], shard: int, numbers: Sequence[int]
    ) -> tuple[dict[float, torch.Tensor], torch.Tensor]:
        """Return inverted latents by timestep, and the row of each."""
        info, generators = self.info, None
        images = torch.stack([image for image, _ in items])
        labels = torch.tensor([label for _, label in items])
        if info.inversion.latent == "sample":
            # Of one shard or of data with random access, a seed is that of the image's number alone.
            first = [shard] if self.images.num_shards > 1 else []
            seeds = [derive_seed(info.inversion.seed, *first, number, "posterior") for number in numbers]
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        latents = self.model.encode(images, generators)
        rows = labels * info.num_modes
        if self._centroids is not None:
            rows = rows + nearest_mode(latents.cpu(), labels, self._centroids)
        inverted = self.model.invert(latents, labels, info.inversion)
        if info.privacy is not None:
            inverted = {time: clip_latents(values, info.privacy) for time, values in inverted.items()}
        return inverted, rows

    def _check_unreadable(self, number: int, error: UnreadableImageError) -> None:
        if self._num_unreadable + number <= self.skip_unreadable:
            logger.warning("left out: %s", error)
            return
        if self.skip_unreadable == 0:
            raise error
        raise UnreadableImageError(
            f"more than {self.skip_unreadable} images, as many as may be left out, cannot be read: {error}"
        ) from error
