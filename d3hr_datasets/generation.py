"""What generating images takes: settings, the model of an artifact, latents, PIL images, groups at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image

from d3hr_datasets.ambient import neutral
from d3hr_datasets.artifact import Artifact
from d3hr_datasets.artifact_info import ArtifactInfo
from d3hr_datasets.cache import ImageCache
from d3hr_datasets.class_list import ClassList
from d3hr_datasets.config import DecodeConfig, GroupSamplingConfig, check_on_grid
from d3hr_datasets.errors import ConfigError, ModelFormatError
from d3hr_datasets.group_sampling import sample_group, sample_nested
from d3hr_datasets.mode_sampling import sample_modes
from d3hr_datasets.model_loading import find_model, read_label_map
from d3hr_datasets.model_size import check_described
from d3hr_datasets.processes import generation_device

if TYPE_CHECKING:
    from d3hr_datasets.diffusion import LatentDiffusion


@neutral()
def load_model(
    artifact: Artifact,
    device: torch.device | str | None = None,
    torch_dtype: torch.dtype = torch.float32,
    class_list: ClassList | None = None,
) -> LatentDiffusion:
    """Load the diffusion model an artifact refers to and check that it fits.

    Args:
        artifact: The artifact.
        device: Where to run.
        torch_dtype: Precision.
        class_list: The names to compare the model's label map with, the artifact's by default.

    Raises:
        ModelNotFoundError: It, or its label map, cannot be loaded.
        ModelFormatError: Its latents, classes, image size or channels are not the artifact's, or its
            label map tells another order of the classes.
    """
    from d3hr_datasets.diffusion import LatentDiffusion

    info = artifact.info
    folder = artifact.model_folder()
    where = folder if folder is not None else str(info.model.repo_id)
    if folder is None:
        folder = find_model(str(where), info.model.revision, info=info)
    else:
        check_described(folder, info)
    model = LatentDiffusion.from_pretrained(
        folder, device=generation_device(device), torch_dtype=torch_dtype, allow_bin=info.model.path is None
    )
    model.check_fits(info)
    label_map = read_label_map(where, info.model.revision)
    (class_list or ClassList.of_artifact(info)).check_label_map(label_map, f"the diffusion model {where}")
    return model


def resolve_settings(
    info: ArtifactInfo, sampling: GroupSamplingConfig | None, decode: DecodeConfig | None, seed: int
) -> tuple[GroupSamplingConfig, DecodeConfig]:
    """Return the settings to generate with: those given, else the artifact's.

    Raises:
        ConfigError: They do not fit the artifact.
    """
    decode = decode or info.decode
    check_on_grid(decode.timestep, decode.num_inference_steps, info.inversion.num_train_timesteps)
    if decode.timestep not in info.inversion.timesteps:
        raise ConfigError(
            f"timestep {decode.timestep} is not stored; stored: {list(info.inversion.timesteps)}"
        )
    default = GroupSamplingConfig("modes" if info.num_modes > 1 else "moment_matched")
    sampling = dataclasses.replace(sampling or default, seed=seed)
    if sampling.method == "modes" and info.num_modes == 1:
        raise ConfigError(
            f"the artifact {info.name} stores no modes; use the method 'moment_matched' or 'search'"
        )
    return sampling, decode


@neutral()
def draw_latents(
    artifact: Artifact,
    class_label: int,
    ipc: int,
    sampling: GroupSamplingConfig,
    decode: DecodeConfig,
    nested: bool,
) -> torch.Tensor:
    """Return what is denoised together: the group of a class, or the whole blocks of a nested one."""

    def draw(size: int, config: GroupSamplingConfig) -> torch.Tensor:
        if config.method == "modes":
            return sample_modes(artifact.modes(decode.timestep, class_label), size, class_label, config)
        gaussian = artifact.gaussians(decode.timestep, class_label)
        return sample_group(gaussian.mean[0], gaussian.variance[0], size, class_label, config)

    return sample_nested(draw, ipc, sampling) if nested else draw(ipc, sampling)


@neutral()
def to_pil(images: torch.Tensor, padding: int = 0) -> list[Image.Image]:
    """Turn float images (B, 1 or 3, H, W) in [-1, 1] into PIL images "L" or "RGB", without the frame.

    Raises:
        ModelFormatError: A pixel is not finite, as when half precision overflows.
    """
    if not images.isfinite().all():
        raise ModelFormatError("the model made pixels that are not finite; use torch_dtype=torch.float32")
    side = images.shape[-1] - padding
    pixels = ((images[..., padding:side, padding:side].float().cpu() + 1) * 127.5).round().clamp(0, 255)
    arrays = pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in arrays]


def ensure_together(
    cache: ImageCache,
    labels: Sequence[int],
    generate: Callable[[list[int]], dict[int, list[Image.Image]]],
    missing: tuple[int, ...] = (),
) -> dict[int, list[Image.Image]]:
    """Have groups in the cache, all that are missing generated by one call.

    The locks of the missing groups are taken one within the other, in the order of the labels, which must
    ascend: no two processes generate the same group, or wait for each other.

    Args:
        cache: The cache.
        labels: Labels to look at.
        generate: Takes labels, returns the images of each.
        missing: Missing labels whose locks are held already; the caller writes their images.

    Returns:
        The images by label, of `missing` and of what was missing of `labels`.
    """
    made: dict[int, list[Image.Image]] = {}
    for position, label in enumerate(labels):

        def make(label: int = label, rest: Sequence[int] = labels[position + 1 :]) -> list[Image.Image]:
            made.update(ensure_together(cache, rest, generate, (*missing, label)))
            return made[label]

        cache.ensure(label, make)
        if made:
            return made
    return generate(list(missing)) if missing else {}


def cached_images(caches: Iterable[ImageCache], label: int, ipc: int) -> list[Image.Image]:
    """Return the first images of a label, at most `ipc`, of that cache which has the most, checked."""
    best: list[Image.Image] = []
    for cache in caches:
        count = min(cache.ipc, ipc)
        if count > len(best) and cache.is_complete(label):
            images = [cache.read(label, index) for index in range(count)]
            if None not in images:
                best = [image for image in images if image is not None]
    return best
