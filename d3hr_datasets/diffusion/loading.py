"""Loading a diffusion model: a folder in diffusers' layout, or a repository -> its parts.

Weights are read from safetensors. Where a Hub repository has none, a pickle is read without running what is
in it (`torch.load(weights_only=True)`), and a warning says so; of a folder only where that is asked for.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.diffusion.kinds.kind import ModelKind
from d3hr_datasets.diffusion.layout import SCHEDULER
from d3hr_datasets.diffusion.model_folder import check_folder, find_model, read_kind
from d3hr_datasets.diffusion.noise_schedule import NoiseSchedule, open_schedule
from d3hr_datasets.diffusion.untrusted_models import check_config, check_size
from d3hr_datasets.errors import MissingExtraError, ModelFormatError, ModelNotFoundError
from d3hr_datasets.io.untrusted_files import is_folder as _is_folder

# A weight of a block. Buffers and the like, which no block has, differ between versions of diffusers.
IN_BLOCK = re.compile(r"(^|[._])(\w+_)?blocks?\.")
# What diffusers and PyTorch raise of files that are damaged, or not those of the model.
OF_DAMAGE = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    ImportError,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ModelParts:
    """A model as it lies in a folder, loaded; its text encoders are not.

    Args:
        folder: In diffusers' layout.
        kind: Of which it is.
        network: Its transformer or UNet.
        vae: Its VAE.
        schedule: Its noise schedule.
    """

    folder: Path
    kind: ModelKind
    network: Any
    vae: Any
    schedule: NoiseSchedule


def load_parts(
    model: str | Path,
    *,
    revision: str | None,
    torch_dtype: torch.dtype,
    local_files_only: bool,
    allow_bin: bool,
    with_encoders: bool = False,
) -> ModelParts:
    """Return network, VAE and schedule of a model; arguments are those of `LatentDiffusion`.

    Args:
        model: A folder, or "ORG/NAME".
        revision: Of the latter.
        torch_dtype: Precision of network and VAE.
        local_files_only: Do not ask the Hub.
        allow_bin: Also read .bin weights of a folder.
        with_encoders: Whether what reads prompts has to be there, too.

    Raises:
        ModelNotFoundError: A part of it is missing.
        ModelFormatError: A part of it is not what diffusers wrote, or it is of no kind that is known.
        MissingExtraError: A library of what reads prompts is not installed.
    """
    import diffusers
    import safetensors

    folder = Path(model)
    is_folder = isinstance(model, Path) or _is_folder(folder)
    if is_folder:
        check_folder(folder, read_kind(folder), revision, allow_bin, with_encoders)
    weights: dict[str, Any] = {"torch_dtype": torch_dtype, "may_pickle": allow_bin or not is_folder}
    try:
        if not is_folder:
            folder = find_model(str(model), revision, local_files_only, None, with_encoders)
        kind = read_kind(folder)
        parts = ((kind.network[0], kind.network[1]), ("vae", kind.vae))
        for part, name in parts:
            check_size(getattr(diffusers, name), folder / part)
        config = check_config(folder / SCHEDULER)
        network, vae = (_load(getattr(diffusers, name), folder, part, **weights) for part, name in parts)
        if kind.upcasts_vae and torch_dtype == torch.float16 and vae.config.get("force_upcast"):
            vae = vae.to(torch.float32)
        schedule = open_schedule(config, kind.num_tokens(network), kind.linear_sigmas)
    except (*OF_DAMAGE, safetensors.SafetensorError) as error:
        if isinstance(error, ModelFormatError | ModelNotFoundError | MissingExtraError):
            raise
        raise ModelFormatError(
            f"the diffusion model {model} is incomplete, damaged or of another kind: {error}. "
            "Download or save it again, or give a model of the kinds that the README names"
        ) from error
    return ModelParts(folder, kind, network, vae, schedule)


def check_parts(kind: ModelKind, network: Any, vae: Any) -> None:
    """Check what a configuration may say and inversion cannot use.

    Raises:
        ModelFormatError: Latents cannot be scaled, or are not those of the network; or it needs inputs that
            nobody gives it.
    """
    channels = kind.latent_shape(network)[0]
    if channels != vae.config.latent_channels:
        raise ModelFormatError(
            f"the {kind.network[0]} takes {channels} latent channels, the VAE makes "
            f"{vae.config.latent_channels}"
        )
    taken = network.config.in_channels
    made = network.config.get("out_channels") or taken
    if made not in (taken, 2 * taken):
        raise ModelFormatError(
            f"the {kind.network[0]} takes {taken} channels and makes {made!r:.40}; accepted: as many, or "
            "twice as many with a learned variance"
        )
    unusable = kind.unusable(network)
    if unusable is not None:
        raise ModelFormatError(f"models of {kind.name} with {unusable} are not supported")
    scale, shift = vae.config.scaling_factor, vae.config.get("shift_factor")
    if not (_is_finite(scale) and scale > 0 and (shift is None or _is_finite(shift))):
        raise ModelFormatError(
            f"the VAE's scaling_factor = {scale!r:.40} and shift_factor = {shift!r:.40}; accepted: a "
            "positive number, and a number or null; see the configuration of the VAE"
        )
    epsilon, groups = network.config.get("norm_eps", 1e-6), vae.config.get("norm_num_groups", 1)
    if not (_is_finite(epsilon) and epsilon > 0 and _is_finite(groups) and groups >= 1):
        raise ModelFormatError(
            f"the {kind.network[0]}'s norm_eps = {epsilon!r:.40} and the VAE's norm_num_groups = "
            f"{groups!r:.40}; accepted: a positive number, and one of at least 1"
        )


def vae_halvings(vae: Any) -> int:
    """Return how often a VAE halves the side of images."""
    config = vae.config
    return len(config.get("block_out_channels") or config.encoder_block_out_channels) - 1


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _load(kind: Any, model: Path, subfolder: str, *, may_pickle: bool, **options: Any) -> Any:
    options |= {
        "subfolder": subfolder,
        "local_files_only": True,
        "low_cpu_mem_usage": False,  # the other way needs accelerate, and differs where it is missing
        "output_loading_info": True,
    }
    try:
        part, info = kind.from_pretrained(str(model), use_safetensors=True, **options)
    except OSError as error:
        if not may_pickle:
            raise
        try:
            part, info = kind.from_pretrained(str(model), use_safetensors=False, **options)
        except OSError as other:
            raise OSError(f"{error}; and without safetensors: {other}") from other
        logger.warning(
            "the %s of %s comes from a pickle (read with weights_only=True), for there are no "
            "safetensors: %s",
            subfolder,
            model,
            error,
        )
    if info["missing_keys"]:
        raise ModelFormatError(
            f"the weights of the diffusion model {model} lack {info['missing_keys'][:5]}; download or save "
            "it again"
        )
    unused = [key for key in info["unexpected_keys"] if IN_BLOCK.search(key)]
    if unused:
        raise ModelFormatError(
            f"the configuration of the {subfolder} of {model} has no place for the weights {unused[:5]}: it "
            "describes another model; download or save it again"
        )
    if part.dtype != options["torch_dtype"]:  # diffusers takes weights as they are where a first one fits
        part = part.to(options["torch_dtype"])
    return part
