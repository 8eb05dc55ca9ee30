"""Loading a diffusion model: diffusers' layout (`transformer/`, `vae/`, `scheduler/`) -> its parts.

Weights are read from safetensors. Where a Hub repository has none, a pickle is read without running what is
in it (`torch.load(weights_only=True)`), and a warning says so; of a folder only where that is asked for.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from d3hr_datasets.errors import ModelFormatError, ModelNotFoundError
from d3hr_datasets.model_size import check_config, check_size

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

WEIGHTS = "diffusion_pytorch_model*"

logger = logging.getLogger(__name__)


def load_parts(
    model: str | Path,
    *,
    revision: str | None,
    torch_dtype: torch.dtype,
    local_files_only: bool,
    allow_bin: bool,
) -> tuple[DiTTransformer2DModel, AutoencoderKL, DDIMScheduler]:
    """Return transformer, VAE and scheduler of a model; arguments are those of `LatentDiffusion`.

    Raises:
        ModelNotFoundError: A part of it is missing.
        ModelFormatError: A part of it is not what diffusers wrote.
    """
    import safetensors
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

    folder = Path(model)
    is_folder = isinstance(model, Path) or folder.is_dir()
    if is_folder:
        _check_folder(folder, revision, allow_bin)
    where: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only or is_folder}
    weights = {**where, "torch_dtype": torch_dtype, "may_pickle": allow_bin or not is_folder}
    try:
        if is_folder:
            for kind, part in ((DiTTransformer2DModel, "transformer"), (AutoencoderKL, "vae")):
                if list((folder / part).glob(f"{WEIGHTS}.safetensors")):
                    check_size(kind, folder / part)
            check_config(folder / "scheduler" / "scheduler_config.json")
        transformer = _load(DiTTransformer2DModel, str(model), "transformer", **weights)
        vae = _load(AutoencoderKL, str(model), "vae", **weights)
        scheduler = DDIMScheduler.from_pretrained(str(model), subfolder="scheduler", **where)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, safetensors.SafetensorError) as error:
        if isinstance(error, ModelFormatError):
            raise
        if not is_folder and isinstance(error, OSError):
            raise ModelNotFoundError(
                f"the diffusion model {model} could not be loaded: {error}. Check the repository's name, "
                "its revision and your connection"
            ) from error
        raise ModelFormatError(
            f"the diffusion model {model} is incomplete, damaged or of another kind: {error}. "
            "Download or save it again"
        ) from error
    return transformer, vae, scheduler


def _check_folder(folder: Path, revision: str | None, allow_bin: bool) -> None:
    if revision is not None:
        raise ModelNotFoundError(
            f"{folder} at revision {revision} is on the Hub, but a folder of that name hides it; leave "
            "out the revision to use the folder, or move it, or run in another folder"
        )
    weights = WEIGHTS + (".*" if allow_bin else ".safetensors")
    for pattern in (
        "transformer/config.json",
        f"transformer/{weights}",
        "vae/config.json",
        f"vae/{weights}",
        "scheduler/scheduler_config.json",
    ):
        if not list(folder.glob(pattern)):
            raise ModelNotFoundError(
                f"{folder / pattern} is missing: a model folder holds transformer/, vae/ and "
                "scheduler/ as `DiTPipeline.save_pretrained` writes them, with safetensors"
            )


def _load(kind: Any, model: str, subfolder: str, *, may_pickle: bool, **options: Any) -> Any:
    options |= {
        "subfolder": subfolder,
        "low_cpu_mem_usage": False,  # the other way needs accelerate, and differs where it is missing
        "output_loading_info": True,
    }
    try:
        part, info = kind.from_pretrained(model, use_safetensors=True, **options)
    except OSError as error:
        if not may_pickle:
            raise
        try:
            part, info = kind.from_pretrained(model, use_safetensors=False, **options)
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
    return part
