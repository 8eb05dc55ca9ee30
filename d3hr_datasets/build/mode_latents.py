"""The latents in which modes are sought: images -> VAE latents, on the disk, a file for each run of images.

The files are cut by shard and image alone, so that any process may make any of them; one that is damaged
counts as missing. They go when the modes are found.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.build.chunks import load_tensors, save_tensors
from d3hr_datasets.build.mode_count import images_for_modes, share_for_modes, short_classes
from d3hr_datasets.build.reading_ahead import ReadAhead, halve_on_out_of_memory
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import BuildError, UnreadableImageError
from d3hr_datasets.io.untrusted_files import check_file
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.sources.records import ImageRecord, Images
from d3hr_datasets.sources.stream_reader import StreamReader

logger = logging.getLogger(__name__)
AGAIN = ".again.latents.safetensors"  # the end of the names of files of a second look
SEEDS = 2**32  # numbers that `derive_seed` returns


def _ignore(number: int) -> None:
    """Take note of nothing."""


class ModeLatents:
    """Makes and reads the latents of the images in which modes are sought.

    Of images with random access these are `images_for_modes`, of a stream each one by its number, with the
    chance of `share_for_modes`. Where labels are not known before, that may be few of a small class: then
    `look_again` has more of its images drawn, of all that are left.

    Args:
        images: Where the images come from.
        model: The diffusion model; its VAE is what runs.
        info: Image size, classes, modes.
        prefix: Folder and first part of the names of the files.
        batch_size: Images per batch; halved as often as memory runs out.
        chunk_size: Images per file.
        skip_unreadable: Images that may be left out; all that cannot be read are, unless it is 0.
        num_readers: Threads that read.
        private: Write files for their owner alone, as chunks that note a membership.
    """

    def __init__(
        self,
        images: Images,
        model: LatentDiffusion,
        info: ArtifactInfo,
        prefix: Path,
        batch_size: int,
        chunk_size: int,
        skip_unreadable: int,
        num_readers: int,
        private: bool = False,
    ) -> None:
        self.images = images
        self.model = model
        self.info = info
        self.prefix = prefix
        self._chunk_size = chunk_size
        self._num_readers, self._private = num_readers, private
        self._skip_unreadable = skip_unreadable
        self._chosen = images_for_modes(images, info) if images.has_random_access else None
        self._share = 1.0 if images.has_random_access else share_for_modes(images, info)
        self._again: dict[int, float] = {}  # share of the images of a class that is looked at again
        self._encode = halve_on_out_of_memory(self._encode_records, batch_size, model)
        self._reader = StreamReader(images)
        self.identity = self._identity(self._chosen or ())

    def look_again(self) -> bool:
        """Return whether more images of some classes are wanted, when the files of all processes are made.

        If so, `make` then makes further files, of these classes alone.
        """
        share, number = self._share, self.images.num_images or 0
        if self._chosen is not None and self.images.labels is None:
            share = len(self._chosen) / max(1, number)
        self._again = short_classes(self.counts(), share, self.info)
        if self._again and self._chosen is not None:
            self._chosen = sorted(set(range(number)).difference(self._chosen))
        return bool(self._again)

    def counts(self) -> torch.Tensor:
        """Return how many images of each class are in the files, (K,) int64.

        Raises:
            BuildError: A file is damaged.
        """
        counts = torch.zeros(len(self.info.classes), dtype=torch.int64)
        for path in self.files():
            counts += read_labels(path).bincount(minlength=len(counts))
        return counts

    @property
    def num_sought(self) -> int | None:
        """How many images are looked at, by all processes together; None where nobody knows it before."""
        return None if self._chosen is None else len(self._chosen)

    def make(self, rank: int, num_processes: int, advance: Callable[[int], object] = _ignore) -> None:
        """Make the files of one of several processes that are missing.

        Args:
            rank: 0 to `num_processes` - 1.
            num_processes: How many share the work.
            advance: Is told how many images were looked at, file by file.

        Raises:
            UnreadableImageError: An image cannot be read, and none may be left out.
        """
        many = self.images.num_shards >= num_processes
        for shard in range(self.images.num_shards):
            if many and shard % num_processes != rank:
                continue
            for number in itertools.count():
                if self._chosen is not None and number * self._chunk_size >= len(self._chosen):
                    break
                if not many and (shard + number) % num_processes != rank:
                    continue
                if self._make(shard, number * self._chunk_size, advance):
                    break

    def files(self) -> list[Path]:
        """Return the files there are, in the order of the images; those of a second look after the others."""
        found = sorted(self._all_files())
        first = [path for path in found if not path.name.endswith(AGAIN)]
        return first + [path for path in found if path.name.endswith(AGAIN) and self._again]

    def _all_files(self) -> Iterator[Path]:
        return self.prefix.parent.glob(f"{self.prefix.name}-*.latents.safetensors")

    def remove(self) -> None:
        """Remove the files."""
        for path in self._all_files():
            path.unlink(missing_ok=True)

    def _make(self, shard: int, start: int, advance: Callable[[int], object]) -> bool:
        """Make a file where it is missing; return whether no image comes after its own."""
        suffix = AGAIN if self._again else ".latents.safetensors"
        path = self.prefix.with_name(f"{self.prefix.name}-{shard:05d}-{start:012d}{suffix}")
        stop = start + self._chunk_size
        chosen = None if self._chosen is None else self._chosen[start:stop]
        identity = self._identity(chosen or ())
        loaded = load_tensors(path)
        if loaded is not None and loaded[1].get("identity") == identity:
            advance(len(loaded[0].get("labels", ())))
            return loaded[1].get("last") == "true"
        if path.exists():
            logger.warning("%s is damaged or of files that have changed since: it is made anew", path)
        if chosen is None:
            taken = list(enumerate(self._reader.take(shard, start, self._chunk_size), start))
            # Those of the first look are not taken again.
            records = [one for one in taken if (self._draw(shard, one[0]) < self._share) != bool(self._again)]
            last = len(taken) < self._chunk_size
        else:
            records = [(number, next(self.images.records(0, number))) for number in chosen]
            last = stop >= len(self._chosen or ())
        latents, labels = self._encode(records, shard)
        order = labels.argsort(stable=True)  # so that those of a class are read in one piece
        notes = {"identity": identity, "last": json.dumps(last)}
        found = {"latents": latents[order], "labels": labels[order]}
        save_tensors(path, found, notes, private=self._private)
        advance(len(records))
        return last

    def _identity(self, chosen: Sequence[int]) -> str:
        """Return what tells images from others: which they are, and what the source says of them."""
        numbers = hashlib.sha256(json.dumps(list(chosen)).encode()).hexdigest()
        again = f" {sorted(self._again.items())}" if self._again else ""
        return f"{numbers} {self._share}{again} {self.images.identity_of(chosen)}"

    def _draw(self, shard: int, number: int) -> float:
        """Return the number from 0 to 1 below which a share of the images has to be to have this one."""
        return derive_seed(self.info.inversion.seed, shard, number, "modes") / SEEDS

    def _encode_records(
        self, batch_size: int, records: Sequence[tuple[int, ImageRecord]], shard: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return latents (N, C, H, W) float32, and labels (N,) int64, of the images that can be read.

        In a second look, of those alone that are drawn of classes that fell short.
        """
        latents, labels = [torch.empty(0, *self.info.latent_shape)], []
        numbers = iter([number for number, _ in records])
        reading = ReadAhead([record for _, record in records], batch_size, self.info, self._num_readers)
        for batch in reading.batches():
            items = []
            for (_, future), number in zip(batch, numbers, strict=False):
                try:
                    item = future.result()
                except UnreadableImageError:
                    if not self._skip_unreadable:
                        raise
                    continue
                if not self._again or self._draw(shard, number) < self._again.get(item[1], 0.0):
                    items.append(item)
            if items:
                latents.append(self.model.encode(torch.stack([image for image, _ in items])).cpu())
                labels += [label for _, label in items]
        return torch.cat(latents), torch.tensor(labels, dtype=torch.int64)


def read_labels(path: Path) -> torch.Tensor:
    """Return the labels (N,) int64, ascending, of a file of latents.

    Raises:
        BuildError: The file is damaged.
    """
    with _opened(path) as file:
        labels: torch.Tensor = file.get_tensor("labels")
    return labels


def read_latents(path: Path, class_labels: Sequence[int]) -> dict[int, torch.Tensor]:
    """Return the latents (N, C, H, W) float32 of some classes in a file, those that have any, by label.

    Raises:
        BuildError: The file is damaged.
    """
    found, wanted = {}, torch.tensor(class_labels)
    with _opened(path) as file:
        labels, latents = file.get_tensor("labels"), file.get_slice("latents")
        first = torch.searchsorted(labels, wanted).tolist()
        last = torch.searchsorted(labels, wanted, right=True).tolist()
        for label, begin, end in zip(class_labels, first, last, strict=True):
            if end > begin:
                found[label] = latents[begin:end]
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        check_file(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, reason: object = "it is not as it was written") -> BuildError:
    """Return the error of a file of the search that was damaged since a process of this run checked it."""
    return BuildError(
        f"{path} was damaged while modes were sought ({reason}); run the build again: it is made anew"
    )
