"""The diffusion model that an artifact refers to: found, loaded, and compared with what the artifact says."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.diffusion.layout import SCHEDULER
from d3hr_datasets.diffusion.loading import find_model, read_label_map
from d3hr_datasets.diffusion.untrusted_models import check_config
from d3hr_datasets.errors import ModelFormatError
from d3hr_datasets.io.untrusted_files import is_file
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.processes import generation_device

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion


def check_described(folder: Path, info: ArtifactInfo) -> None:
    """Compare the configurations of a model with the artifact it should belong to.

    Args:
        folder: In diffusers' layout.
        info: The artifact's.

    Raises:
        ArtifactFormatError: A configuration is no JSON object.
        ModelFormatError: A number in it is too large, or not the artifact's.
    """
    paths = [folder / "transformer" / "config.json", folder / SCHEDULER]
    transformer, scheduler = (check_config(path) if is_file(path) else {} for path in paths)
    channels, side, _ = info.latent_shape
    for config, key, expected in (
        (transformer, "in_channels", channels),
        (transformer, "sample_size", side),
        (transformer, "num_embeds_ada_norm", len(info.classes)),
        (scheduler, "num_train_timesteps", info.inversion.num_train_timesteps),
    ):
        found = config.get(key, expected)
        if found != expected:
            raise ModelFormatError(
                f"the artifact {info.name} says latent_shape = {info.latent_shape}, {len(info.classes)} "
                f"classes and {info.inversion.num_train_timesteps} timesteps, its diffusion model says "
                f"{key} = {found!r:.40}; they do not belong together"
            )


def check_fits(model: LatentDiffusion, info: ArtifactInfo) -> None:
    """Check that a model is one an artifact can be of.

    Raises:
        ModelFormatError: Its latents, classes, image size or channels are not the artifact's.
    """
    pairs = {
        "latent_shape": (info.latent_shape, model.latent_shape),
        "the number of classes": (len(info.classes), model.num_classes),
        "image_mode": (info.image_mode, {1: "L", 3: "RGB"}.get(model.image_channels)),
        "image_size + 2 * padding": (info.image_size + 2 * info.padding, model.sample_size),
        "num_train_timesteps": (info.inversion.num_train_timesteps, len(model.scheduler.alphas_cumprod)),
    }
    for name, (expected, found) in pairs.items():
        if expected != found:
            raise ModelFormatError(
                f"the artifact {info.name} says {name} = {expected}, its diffusion model has {found}; "
                "they do not belong together"
            )


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
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion

    info = artifact.info
    folder = artifact.model_folder()
    where = folder if folder is not None else str(info.model.repo_id)
    if folder is None:
        folder = find_model(str(where), info.model.revision, check=partial(check_described, info=info))
    else:
        check_described(folder, info)
    model = LatentDiffusion.from_pretrained(
        folder, device=generation_device(device), torch_dtype=torch_dtype, allow_bin=info.model.path is None
    )
    check_fits(model, info)
    label_map = read_label_map(where, info.model.revision)
    (class_list or info.class_list).check_label_map(label_map, f"the diffusion model {where}")
    return model
