"""The diffusion model that an artifact refers to: found, loaded, and compared with what the artifact says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.diffusion.adapters import check_base, read_description
from d3hr_datasets.diffusion.layout import SCHEDULER
from d3hr_datasets.diffusion.model_folder import find_model, read_kind, read_label_map
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
    kind = read_kind(folder)
    if kind.takes_prompts != (info.prompts is not None):
        takes = "a prompt for each class, and the artifact has none"
        if not kind.takes_prompts:
            takes = "class labels, and the artifact has prompts"
        raise ModelFormatError(
            f"the diffusion model of the artifact {info.name} is of the kind {kind.name}, which takes "
            f"{takes}: they do not belong together; download the artifact again"
        )
    paths = [folder / kind.network[0] / "config.json", folder / SCHEDULER]
    network, scheduler = (check_config(path) if is_file(path) else {} for path in paths)
    channels, side, _ = info.latent_shape
    expectations = [(scheduler, "num_train_timesteps", info.inversion.num_train_timesteps)]
    if kind.name != "FLUX.1":  # which packs its latents, and takes any size
        expectations += [(network, "in_channels", channels), (network, "sample_size", side)]
    if not kind.takes_prompts and not info.adapter:
        expectations.append((network, "num_embeds_ada_norm", len(info.classes)))
    for config, key, expected in expectations:
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
        ModelFormatError: Its latents, classes, image size, channels or schedule are not the artifact's.
    """
    schedule = model.schedule
    pairs: dict[str, tuple[Any, Any]] = {
        "latent_shape": (info.latent_shape, model.latent_shape),
        "the number of classes": (len(info.classes), model.num_classes),
        "image_mode": (info.image_mode, {1: "L", 3: "RGB"}.get(model.image_channels)),
        "image_size + 2 * padding": (info.image_size + 2 * info.padding, model.sample_size),
        "num_train_timesteps": (info.inversion.num_train_timesteps, schedule.num_train_timesteps),
        "whether it is one of flow matching": (info.inversion.grid == "flow", schedule.grid_kind == "flow"),
        "shift": (info.inversion.shift, schedule.shift),
        "whether classes are prompts": (info.prompts is not None, model.kind.takes_prompts),
    }
    for name, (expected, found) in pairs.items():
        if expected != found:
            raise ModelFormatError(
                f"the artifact {info.name} says {name} = {expected}, its diffusion model has {found}; "
                "they do not belong together"
            )


def _check_embeddings(model: LatentDiffusion, info: ArtifactInfo) -> None:
    """Check that stored embeddings are such as the network takes."""
    found = model.conditioning.inputs(torch.zeros(1, dtype=torch.int64), guided=False)
    embeddings = found.get("encoder_hidden_states", torch.zeros(0, dtype=torch.int64))
    width = model.kind.embedding_width(model.network)
    if not embeddings.is_floating_point() or embeddings.dim() != 3 or embeddings.shape[-1] != width:
        raise ModelFormatError(
            f"the artifact {info.name} stores embeddings of shape {tuple(embeddings.shape)} and "
            f"{embeddings.dtype}, its diffusion model takes floats of width {width}; download the artifact "
            "again, or build it anew"
        )


def _checked_adapter(artifact: Artifact, folder: Path) -> Path | None:
    """Return the folder of an artifact's adapter, if it has one, of the model in `folder`."""
    adapter, reference = artifact.adapter_folder(), artifact.info.model
    if adapter is not None:
        kind, described = read_kind(folder), read_description(adapter)
        check_base(described, folder, kind, reference.repo_id, reference.revision)
        if described.num_classes not in (None, len(artifact.info.classes)):  # before tables are made for them
            raise ModelFormatError(
                f"the adapter of {artifact.info.name} is of {described.num_classes} classes, the artifact of "
                f"{len(artifact.info.classes)}; build it again with an adapter of its classes"
            )
    return adapter


@neutral()
def load_model(
    artifact: Artifact,
    device: torch.device | str | None = None,
    torch_dtype: torch.dtype = torch.float32,
    class_list: ClassList | None = None,
    class_labels: Sequence[int] | None = None,
    cpu_offload: bool = False,
) -> LatentDiffusion:
    """Load the diffusion model an artifact refers to and check that it fits.

    Args:
        artifact: The artifact.
        device: Where to run.
        torch_dtype: Precision.
        class_list: The names to compare the model's label map with, the artifact's by default.
        class_labels: The classes in use, whose prompts are read; all by default.
        cpu_offload: Whether its parts take turns on the device, and wait in the host's memory.

    Raises:
        ModelNotFoundError: It, or its label map, cannot be loaded.
        ModelFormatError: Latents, classes or their order, image size or channels are not the artifact's.
        MissingExtraError: What reads its prompts, or applies its adapter, is not installed.
    """
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion

    info, folder = artifact.info, artifact.model_folder()
    where = folder if folder is not None else str(info.model.repo_id)
    if folder is None:
        folder = find_model(
            str(where),
            info.model.revision,
            check=partial(check_described, info=info),
            with_encoders=info.prompts is not None and not info.embeddings,
        )
    else:
        check_described(folder, info)
    adapter = _checked_adapter(artifact, folder)
    labels = range(len(info.classes)) if class_labels is None else sorted(set(class_labels))
    prompts = None if info.prompts is None else {label: info.prompts.per_class[label] for label in labels}
    model = LatentDiffusion.from_pretrained(
        folder,
        device=generation_device(device),
        torch_dtype=torch_dtype,
        allow_bin=info.model.path is None,
        prompts=None if info.embeddings else prompts,
        negative_prompt=None if info.prompts is None else info.prompts.negative,
        num_classes=len(info.classes),
        conditioning=artifact.embeddings() if info.embeddings else None,
        adapter=adapter,
        cpu_offload=cpu_offload,
    )
    check_fits(model, info)
    if info.embeddings:
        _check_embeddings(model, info)
    if info.prompts is None and adapter is None:
        label_map = read_label_map(where, info.model.revision)
        (class_list or info.class_list).check_label_map(label_map, f"the diffusion model {where}")
    return model
