"""What makes the images of a set: all that its pixels depend on -> their name, latents and pixels.

In: an artifact and settings that fit it. Out: the fingerprint, the cache, and groups of PIL images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.cache.epoch_sets import MARK
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.nested_sets import cached_images
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.dataset.batches import BatchSize, Finish, UnfinishedGroup, in_batches
from d3hr_datasets.dataset.generation_progress import GenerationProgress
from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.sampling.samplers import draw_latents, group_weights

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion

# Raised when the same settings give other pixels than before, so that old caches are not read.
PIXELS_VERSION = 3

# That are denoised before they are decoded, where network and VAE take turns on the device: it takes time to
# move them.
OFFLOADED_BATCHES = 8


@dataclass(frozen=True, eq=False)
class ImageGenerator:
    """All that pixels depend on; arguments are attributes of `D3HRDataset`, and labels are its labels.

    Args:
        artifact: The artifact.
        class_labels: The model's class label of each label, (K,) int64.
        ipc: Images per class.
        sampling: How groups are sampled, with the seed of the set.
        decode: How groups are denoised.
        nested: Whether sets of all sizes share their first images.
        torch_dtype: Precision of the diffusion model.
        epoch: Which groups are drawn: 0 for those of the seed, others for those of a seed that is derived of
            it and the epoch.
    """

    artifact: Artifact
    class_labels: torch.Tensor
    ipc: int
    sampling: GroupSamplingConfig
    decode: DecodeConfig
    nested: bool
    torch_dtype: torch.dtype
    epoch: int = 0

    @property
    def drawn(self) -> GroupSamplingConfig:
        """How the groups of the epoch are sampled, with its seed."""
        if not self.epoch:
            return self.sampling
        return dataclasses.replace(self.sampling, seed=derive_seed("epoch", self.sampling.seed, self.epoch))

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the pixels."""
        parts = [
            PIXELS_VERSION,
            self.artifact.fingerprint,
            self.decode.to_dict(),
            self.drawn.to_dict(),
            "nested" if self.nested else self.ipc,
            self.class_labels.tolist(),
            str(self.torch_dtype),
            *self._order,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _order(self) -> list[str | None]:
        """What names the order of a curated set; nothing of others, which do not depend on it."""
        return [self.artifact.order_fingerprint] if self.sampling.method == "curated" else []

    def cache(self, root: Path, ipc: int | None = None) -> ImageCache:
        """Return the cache of this set, or of the nested one of another size."""
        info = self.artifact.info
        ipc = self.ipc if ipc is None else ipc
        kind = "-nested" if self.nested else ""
        precision = str(self.torch_dtype).removeprefix("torch.")
        other = "" if self.torch_dtype == torch.float32 else f"-{precision}"
        seed = f"seed{self.sampling.seed}" + (f"-epoch{self.epoch}" if self.epoch else "")
        name = f"{info.name}{kind}-ipc{ipc}-{seed}{other}-{self.fingerprint}"
        class_names = [info.classes[label] for label in self.class_labels.tolist()]
        settings = {
            "artifact": info.name,
            "artifact_fingerprint": self.artifact.fingerprint,
            "artifact_repo_id": self.artifact.repo_id,
            "artifact_revision": self.artifact.revision,
            "seed": self.drawn.seed,
            "classes": class_names,
            "sampling": self.drawn.to_dict(),
            "decode": self.decode.to_dict(),
            "torch_dtype": str(self.torch_dtype),
            "nested": self.nested,
            **({"order": self._order[0]} if self._order else {}),
        }
        if self.epoch:
            settings[MARK] = {"seed": self.sampling.seed, "epoch": self.epoch}
        return ImageCache(root, name, class_names, ipc, settings=settings)

    def latents(self, label: int) -> torch.Tensor:
        """Return the latents of a group, (ipc, C, H, W) float32; a nested one's are drawn in whole blocks."""
        settings = self.drawn, self.decode, self.nested
        return draw_latents(self.artifact, int(self.class_labels[label]), self.ipc, *settings)[: self.ipc]

    def weights(self) -> torch.Tensor:
        """Return the share of its class's real images that each image stands for, (K x ipc,) float32."""
        settings = self.ipc, self.sampling, self.decode, self.nested
        labels = self.class_labels.tolist()
        return torch.cat([group_weights(self.artifact, label, *settings) for label in labels])

    def copied(self, label: int, root: Path) -> list[Image.Image]:
        """Return the first images of a label that a nested set has at other sizes; arguments as `group`."""
        return cached_images(self._other_sizes(root), label, self.ipc) if self.nested else []

    def group(self, label: int, root: Path) -> UnfinishedGroup:
        """Return the images of a label that are there, of a nested set, and latents of those that are not.

        Args:
            label: The label.
            root: Where a nested set looks for images that it has at other sizes.
        """
        images = self.copied(label, root)
        latents = self.latents(label)[len(images) :] if len(images) < self.ipc else torch.empty(0)
        return UnfinishedGroup(label, int(self.class_labels[label]), latents, images)

    def generate(
        self,
        model: LatentDiffusion,
        labels: Iterable[int],
        size: BatchSize,
        root: Path,
        progress: GenerationProgress,
    ) -> Generator[tuple[int, list[Image.Image]], None, None]:
        """Yield (label, images) of labels, in their order, as soon as they are made.

        Batches go across classes; what is there, or not asked for, is in none. On CUDA a batch is decoded
        while the next one is denoised. Run it in `neutral` settings.

        Args:
            model: The artifact's diffusion model.
            labels: The labels; each is asked for when there is room for its latents in a batch.
            size: Images in the model at a time.
            root: Where a nested set looks for images that it has at other sizes.
            progress: Is told of each batch, and of images that are there.
        """

        def start(latents: torch.Tensor, class_labels: torch.Tensor, batch_size: int) -> Finish:
            with torch.random.fork_rng(devices=[]):  # compiling must not move the user's generator
                clean = model.denoise(latents, class_labels, self.decode, batch_size)
                decoded = model.second_stream.start(lambda: model.decode(clean, batch_size), clean)

            def finish() -> list[Image.Image]:
                images = to_pil(decoded(), self.artifact.info.padding)
                progress.advance(len(images))
                return images

            return finish

        def groups() -> Iterator[UnfinishedGroup]:
            for label in labels:
                group = self.group(label, root)
                progress.leave_out(len(group.images))
                yield group

        together = OFFLOADED_BATCHES if model.placement.is_offloaded else 1
        ahead = model.second_stream.is_there
        for group in in_batches(groups(), start, size, ahead=ahead, together=together):
            yield group.label, group.images

    def _other_sizes(self, root: Path) -> Iterator[ImageCache]:
        """Yield the caches of this nested set at other sizes."""
        head, tail = self.cache(root).folder.name.split(f"-ipc{self.ipc}-", 1)
        for folder in root.glob(f"{head}-ipc*-{tail}"):
            size = folder.name.removeprefix(f"{head}-ipc").removesuffix(f"-{tail}")
            if size.isdecimal() and int(size) != self.ipc:
                yield self.cache(root, int(size))
