"""Latents that are encoded once: images and a VAE -> files on the disk -> rows of any batch.

    OUTPUT/latents/SPLIT-DIGEST-00000-of-00042.safetensors    "mean" (n, C, H, W) float32, "labels" (n,) int64

Each file is whole or not there, and named by the VAE's weights and the images, so that a run that is begun
again encodes what is missing. Files are mapped into memory and read where a batch needs them: nothing has to
fit into it. Of several processes each encodes some files, and reads its own rows of each batch.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from d3hr_datasets.diffusion.layout import WEIGHTS
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.errors import ArtifactFormatError, ConfigError, ModelNotFoundError
from d3hr_datasets.io.atomic import remove_unfinished, replace_file
from d3hr_datasets.io.untrusted_files import file_sha256, read_header
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.training.images import TrainingImages
from d3hr_datasets.training.progress import progress_bar

BYTES_OF_A_SHARD = 2**28
BATCH = 128  # images that the VAE encodes at a time, at most, and what shards are a multiple of
PIXELS_OF_A_BATCH = 2**21


@dataclass(frozen=True)
class EncodedVAE:
    """A VAE as training sees it.

    Args:
        module: diffusers' VAE, in float32.
        digest: Of its weights.
        padding: Black frame around the images, in pixels.
        image_size: Side of the images without it.
    """

    module: Any
    digest: str
    padding: int
    image_size: int

    @property
    def scaling(self) -> tuple[float, float]:
        """Factor and shift of latents."""
        config = self.module.config
        return float(config.scaling_factor), float(config.get("shift_factor") or 0.0)

    @property
    def channels(self) -> int:
        """Of the images."""
        return int(self.module.config.in_channels)

    @neutral(full_float32=True)
    def encode(self, pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Return unscaled latents (B, C, H, W) of uint8 pixels (B, C, S, S), on the CPU.

        The posterior's mean, since it is what inversion starts from and what decodes best.
        """
        side = self.image_size + 2 * self.padding
        size = max(1, min(BATCH, PIXELS_OF_A_BATCH // side**2))
        found = []
        for batch in pixels.split(size):
            encoded = self.module.encode(to_model_range(batch, self.padding).to(device))
            latents = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mean
            found.append(latents.float().cpu())
        return torch.cat(found)


def vae_digest(folder: Path) -> str:
    """Return the SHA-256 of a VAE's weights.

    Args:
        folder: With `diffusion_pytorch_model*.safetensors`.

    Raises:
        ModelNotFoundError: There are none.
    """
    files = sorted(folder.glob(f"{WEIGHTS}*.safetensors"))
    if not files:
        raise ModelNotFoundError(
            f"{folder} has no {WEIGHTS}.safetensors: it is no VAE as diffusers saves one"
        )
    digest = hashlib.sha256()
    for path in files:
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()


class Latents:
    """Latents in files: the images as a diffusion model sees them.

    Args:
        paths: The files, in order.
        rows: Latents of each but the last.
        scaling: Factor and shift of the VAE's configuration.
        classes: Names of the classes.

    Attributes:
        labels: (N,) int64.
        shape: (C, H, W) of one.
    """

    def __init__(
        self, paths: list[Path], rows: int, scaling: tuple[float, float], classes: tuple[str, ...]
    ) -> None:
        self.rows, self.classes = rows, classes
        self._factor, self._shift = scaling
        self._files = [_open(path) for path in paths]
        self.labels = torch.cat([file.get_tensor("labels") for file in self._files])
        self._means: list[torch.Tensor] = [
            file.get_tensor("mean") for file in self._files
        ]  # mapped, not read
        self.shape = tuple(self._means[0].shape[1:])

    def __len__(self) -> int:
        return len(self.labels)

    @neutral()
    def values(self, index: torch.Tensor) -> torch.Tensor:
        """Return scaled latents (B, C, H, W) of images `index` (B,), on the CPU."""
        found = torch.empty(len(index), *self.shape)
        shards = index // self.rows
        for shard in shards.unique().tolist():
            wanted = shards == shard
            found[wanted] = self._means[shard][index[wanted] - shard * self.rows]
        return (found - self._shift) * self._factor


@neutral()
def encoded_latents(
    images: TrainingImages, vae: EncodedVAE, folder: Path, name: str, accelerator: Any
) -> Latents:
    """Return the latents of images, encoded and written first as far as they are not there.

    Args:
        images: The images.
        vae: The VAE.
        folder: Of the files.
        name: What files begin with; what tells images and VAE from others is added.
        accelerator: Accelerate's `Accelerator`; every process calls this.
    """
    key = f"{vae.digest} {images.identity} {vae.image_size} {vae.padding} {vae.channels}"
    name = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    device = accelerator.device
    vae.module.to(device).eval()
    probe = vae.encode(images.batch([0])[0], device)
    per_shard = max(1, BYTES_OF_A_SHARD // (probe[0].numel() * 4) // BATCH) * BATCH
    starts = range(0, images.num_images, per_shard)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{i:05d}-of-{len(starts):05d}.safetensors" for i in range(len(starts))]
    own = range(accelerator.process_index, len(starts), accelerator.num_processes)
    missing = [number for number in own if not paths[number].exists()]
    counts = [len(range(images.num_images)[starts[number] :][:per_shard]) for number in missing]
    shown = bool(missing) and accelerator.is_main_process
    with progress_bar("encoding", sum(counts), 0, shown) as progress:
        for number, count in zip(missing, counts, strict=True):
            _write(
                paths[number], images, vae, range(starts[number], starts[number] + count), device, progress
            )
    accelerator.wait_for_everyone()
    return Latents(paths, per_shard, vae.scaling, images.classes)


def _write(
    path: Path,
    images: TrainingImages,
    vae: EncodedVAE,
    numbers: range,
    device: torch.device,
    progress: Any,
) -> None:
    remove_unfinished(path)  # of a process that was killed
    means, labels = [], []
    batches = [numbers[start : start + BATCH] for start in range(0, len(numbers), BATCH)]
    with ThreadPoolExecutor(1) as pool:  # the next batch is read while one is encoded
        ahead = pool.submit(images.batch, batches[0])
        for following in [*batches[1:], range(0)]:
            pixels, targets = ahead.result()
            if following:
                ahead = pool.submit(images.batch, following)
            means.append(vae.encode(pixels, device))
            labels.append(targets)
            progress.update(len(targets))
    tensors = {"mean": torch.cat(means).contiguous(), "labels": torch.cat(labels)}
    replace_file(path, lambda temporary: save_file(tensors, temporary))


def _open(path: Path) -> Any:
    try:
        read_header(path)
        return safe_open(path, "pt")
    except (ArtifactFormatError, SafetensorError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}); delete it, and its images are encoded again"
        ) from error
