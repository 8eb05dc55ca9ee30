"""The build side: labelled images + a diffusion model -> an artifact.

In: a data set of (PIL image, int) and a model folder. Out: class Gaussians of the inverted latents at
one or several timesteps, and the modes of the classes if asked for, as an artifact. Finished
chunks are files, so a build that was killed goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from d3hr_datasets.artifact import Artifact
from d3hr_datasets.artifact_info import ArtifactInfo
from d3hr_datasets.clustering import fit_centroids, nearest_mode
from d3hr_datasets.config import check_int
from d3hr_datasets.diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError, UnreadableImageError
from d3hr_datasets.gaussians import RunningMoments
from d3hr_datasets.group_sampling import derive_seed

# Images per class, on average, in which modes are sought.
IMAGES_FOR_MODES = 1000


class ImageSource(Protocol):
    """What is built from: torchvision data sets are like this."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return (PIL image, class label)."""


def resize_and_crop(image: Image.Image, image_size: int, image_mode: str) -> torch.Tensor:
    """Turn a PIL image into (C, S, S) uint8, S = image_size.

    The shorter side is resized (bicubic, antialiased) unless it is that long already, and the centre is
    cropped.
    """
    pixels = F.pil_to_tensor(image.convert(image_mode))
    if min(pixels.shape[-2:]) != image_size:
        pixels = F.resize(pixels, [image_size], interpolation=F.InterpolationMode.BICUBIC, antialias=True)
    return F.center_crop(pixels, [image_size, image_size])


def to_model_range(pixels: torch.Tensor, padding: int) -> torch.Tensor:
    """Turn uint8 (..., S, S) into float32 in [-1, 1] with a black frame of `padding` pixels."""
    return F.pad(pixels.float() / 127.5 - 1, [padding] * 4, fill=-1.0)


def build_artifact(
    source: ImageSource,
    model: LatentDiffusion,
    output: str | Path,
    info: ArtifactInfo,
    work: str | Path,
    batch_size: int = 256,
    chunk_size: int = 2048,
    progress: bool = True,
) -> Artifact:
    """Invert every image of `source` and save the class Gaussians.

    Source: D3HR, sections 4.1 and 4.2.
    Differs from reference: an unreadable image stops the build (there it becomes a black one), moments
    are float64, and posterior samples, where asked for, are seeded by the image's index.

    Args:
        source: Images with class labels 0..K-1 of the model, in a fixed order.
        model: The diffusion model; the same one that `info.model` refers to.
        output: Folder of the artifact. A model inside it must be there already.
        info: What to write; `counts`, and `fingerprint` in `source`, are those found. `source` must tell
            the images from other ones: finished chunks are looked up by it, by the labels where the
            data set has `targets`, and by the model's weights.
        work: Folder for finished chunks. Another build of the same chunks goes on from them.
        batch_size: Images per batch.
        chunk_size: Images per chunk, the most that a killed build loses.
        progress: Show a progress bar on stderr.

    Returns:
        The artifact.

    Raises:
        UnreadableImageError: An image cannot be read; the message says which and why.
        ConfigError: A class label is outside 0..K-1, or a size is below 1.
        ModelFormatError: The model's latents, classes or images are not those of `info`.
        StatisticsError: A class has fewer than two images, or a latent is not finite.
    """
    check_int("batch_size", batch_size, 1)
    check_int("chunk_size", chunk_size, 1)
    model.check_fits(info)
    work, inversion = Path(work), info.inversion
    work.mkdir(parents=True, exist_ok=True)
    key = _chunk_key(source, model, info, chunk_size)
    centroids = (
        None if info.num_modes == 1 else _centroids(work / f"{key}-modes.safetensors", source, model, info)
    )
    total = _moments(info)
    pixels = 0
    bar = tqdm(total=len(source), desc="inverting", unit="image", disable=not progress)
    for start in range(0, len(source), chunk_size):
        indices = range(start, min(start + chunk_size, len(source)))
        path = work / f"{key}-{start:09d}.safetensors"
        chunk = _read_chunk(path, inversion.timesteps)
        if chunk is None:
            chunk = _invert_chunk(source, model, info, indices, batch_size, centroids)
            _write_chunk(path, chunk)
        for timestep, moments in chunk.moments.items():
            total[timestep].merge(moments)
        pixels += int.from_bytes(bytes(chunk.pixels.tolist()), "big")
        bar.update(len(indices))
    bar.close()
    gaussians = {t: moments.grouped(info.num_modes).gaussians() for t, moments in total.items()}
    modes = {t: moments.modes(info.num_modes) for t, moments in total.items() if info.num_modes > 1}
    found: dict[str, Any] = {
        "counts": tuple(gaussians[inversion.timesteps[0]].count.tolist()),
        "source": {**info.source, "fingerprint": f"{pixels % 2**256:064x}"},
    }
    return Artifact.save(output, dataclasses.replace(info, **found), gaussians, modes)


@dataclasses.dataclass
class _Chunk:
    """Moments of a run of images by timestep, and what names its images.

    Args:
        moments: By timestep, a row for each mode of each class.
        pixels: (32,) uint8, the sum modulo 2^256 of the SHA-256 of each image's pixels and label: sums of
            chunks add up to the same for any batch and chunk size.
    """

    moments: dict[int, RunningMoments]
    pixels: torch.Tensor


def _chunk_key(source: ImageSource, model: LatentDiffusion, info: ArtifactInfo, chunk_size: int) -> str:
    """Return what names the chunks of a build: model, settings, and what is known of the images."""
    targets = getattr(source, "targets", None)
    settings = [
        model.fingerprint,
        info.inversion.to_dict(),
        [info.image_size, info.padding, info.image_mode, len(info.classes), info.latent_shape],
        [info.source, len(source), None if targets is None else [int(target) for target in targets]],
        chunk_size,
        info.num_modes,
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _moments(info: ArtifactInfo) -> dict[int, RunningMoments]:
    rows = len(info.classes) * info.num_modes
    return {timestep: RunningMoments(rows, info.latent_shape) for timestep in info.inversion.timesteps}


def _centroids(path: Path, source: ImageSource, model: LatentDiffusion, info: ArtifactInfo) -> torch.Tensor:
    """Find the centroids in a random part of the images, or read those an earlier run found."""
    try:
        return load_file(path)["centroids"]
    except (FileNotFoundError, SafetensorError):
        pass
    seed = derive_seed(info.inversion.seed, "modes")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    chosen = order[: IMAGES_FOR_MODES * len(info.classes)].sort().values.tolist()
    latents, labels = [], []
    with ThreadPoolExecutor(max_workers=4) as pool:
        for first in range(0, len(chosen), 256):
            items = list(pool.map(lambda index: _read(source, index, info), chosen[first : first + 256]))
            latents.append(model.encode(torch.stack([image for image, _ in items])).cpu())
            labels += [label for _, label in items]
    centroids = fit_centroids(torch.cat(latents), torch.tensor(labels), len(info.classes), info.num_modes)
    _save(path, {"centroids": centroids})
    return centroids


def _invert_chunk(
    source: ImageSource,
    model: LatentDiffusion,
    info: ArtifactInfo,
    indices: Sequence[int],
    batch_size: int,
    centroids: torch.Tensor | None,
) -> _Chunk:
    pixels = 0
    moments = _moments(info)
    with ThreadPoolExecutor(max_workers=4) as pool:
        for first in range(0, len(indices), batch_size):
            batch = indices[first : first + batch_size]
            items = list(pool.map(lambda index: _read(source, index, info), batch))
            images = torch.stack([image for image, _ in items])
            labels = torch.tensor([label for _, label in items])
            pixels += sum(_image_digest(image, label) for image, label in items)
            generators = None
            if info.inversion.latent == "sample":
                seeds = [derive_seed(info.inversion.seed, index, "posterior") for index in batch]
                generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            latents = model.encode(images, generators)
            rows = labels * info.num_modes
            if centroids is not None:
                rows += nearest_mode(latents.cpu(), labels, centroids)
            for timestep, inverted in model.invert(latents, labels, info.inversion).items():
                moments[timestep].update(inverted, rows)
    return _Chunk(moments, torch.tensor(list((pixels % 2**256).to_bytes(32, "big")), dtype=torch.uint8))


def _image_digest(image: torch.Tensor, label: int) -> int:
    digest = hashlib.sha256(image.numpy().tobytes() + label.to_bytes(8, "big"))
    return int.from_bytes(digest.digest(), "big")


def _read(source: ImageSource, index: int, info: ArtifactInfo) -> tuple[torch.Tensor, int]:
    try:
        image, label = source[index]
        tensor = to_model_range(resize_and_crop(image, info.image_size, info.image_mode), info.padding)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        samples = getattr(source, "samples", None)
        where = f" ({samples[index][0]})" if samples else ""
        raise UnreadableImageError(
            f"image {index}{where} cannot be read: {error}. Mend or remove it, then run the build again; "
            "finished chunks are kept"
        ) from error
    if not 0 <= int(label) < len(info.classes):
        raise ConfigError(f"image {index} has class label {label}; accepted: 0 to {len(info.classes) - 1}")
    return tensor, int(label)


def _write_chunk(path: Path, chunk: _Chunk) -> None:
    tensors = {
        f"{timestep}.{name}": tensor
        for timestep, moments in chunk.moments.items()
        for name, tensor in moments.state_dict().items()
    }
    tensors["pixels"] = chunk.pixels
    _save(path, tensors)


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(tensors, temporary)
    temporary.replace(path)


def _read_chunk(path: Path, timesteps: Sequence[int]) -> _Chunk | None:
    """Return a finished chunk, or None if there is none or it is damaged (it is then made again)."""
    try:
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
    moments = {
        timestep: RunningMoments.from_state_dict(
            {name: tensors[f"{timestep}.{name}"] for name in ("count", "mean", "squares")}
        )
        for timestep in timesteps
    }
    return _Chunk(moments, tensors["pixels"])
