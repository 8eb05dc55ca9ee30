"""Loading a diffusion model: diffusers' layout (`transformer/`, `vae/`, `scheduler/`) -> its parts.

Weights are read from safetensors. Where a Hub repository has none, a pickle is read without running what is
in it (`torch.load(weights_only=True)`), and a warning says so; of a folder only where that is asked for.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from d3hr_datasets.diffusion.download import download_model
from d3hr_datasets.diffusion.layout import INDEX, SCHEDULER, WEIGHTS
from d3hr_datasets.diffusion.untrusted_models import check_config, check_size
from d3hr_datasets.errors import ArtifactFormatError, ModelFormatError, ModelNotFoundError
from d3hr_datasets.io.hub_files import fetch_file
from d3hr_datasets.io.text import printable
from d3hr_datasets.io.untrusted_files import MAX_CONFIG_BYTES, is_file, read_json
from d3hr_datasets.io.untrusted_files import is_folder as _is_folder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

# In it: the black frame, in pixels, around the images that the model was trained on. diffusers passes over
# names with "_" where it loads a pipeline, and does not write them again where it saves one.
PADDING = "_padding"
PREDICTION_TYPES = ("epsilon", "v_prediction")
# A weight of a block. Buffers and the like, which no block has, differ between versions of diffusers.
IN_BLOCK = re.compile(r"(^|[._])blocks?\.")

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
    is_folder = isinstance(model, Path) or _is_folder(folder)
    if is_folder:
        _check_folder(folder, revision, allow_bin)
    weights: dict[str, Any] = {"torch_dtype": torch_dtype, "may_pickle": allow_bin or not is_folder}
    try:
        if not is_folder:
            folder = find_model(str(model), revision, local_files_only)
        for kind, part in ((DiTTransformer2DModel, "transformer"), (AutoencoderKL, "vae")):
            check_size(kind, folder / part)
        schedule = check_config(folder / SCHEDULER)
        transformer = _load(DiTTransformer2DModel, folder, "transformer", **weights)
        vae = _load(AutoencoderKL, folder, "vae", **weights)
        _check_schedule(model, schedule)
        scheduler = DDIMScheduler.from_config(schedule)
    except (
        OSError,
        ValueError,
        RuntimeError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        ImportError,
        safetensors.SafetensorError,
    ) as error:
        if isinstance(error, ModelFormatError | ModelNotFoundError):
            raise
        raise ModelFormatError(
            f"the diffusion model {model} is incomplete, damaged or of another kind: {error}. "
            "Download or save it again, or give a model of the kinds that the README names"
        ) from error
    return transformer, vae, scheduler


def find_model(
    repo_id: str,
    revision: str | None,
    local_files_only: bool = False,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Return the folder of a model on the Hub in the Hub's cache; arguments as `download_model`.

    Raises:
        ModelNotFoundError: The Hub does not give it, and it is not cached.
        ModelFormatError: It is not what diffusers wrote, or `check` refuses it.
    """
    try:
        return download_model(repo_id, revision, local_files_only, check)
    except ModelFormatError:
        raise
    except ArtifactFormatError as error:
        raise ModelFormatError(f"the diffusion model {repo_id} is not accepted: {error}") from error
    except Exception as error:  # the client lets those of its own libraries through
        raise ModelNotFoundError(
            f"the diffusion model {repo_id} could not be loaded: {printable(error)}. Check the repository's "
            "name, its revision and your connection"
        ) from error


def check_parts(transformer: DiTTransformer2DModel, vae: AutoencoderKL, scheduler: DDIMScheduler) -> None:
    """Check what a configuration may say and inversion cannot use.

    Raises:
        ModelFormatError: Latents cannot be scaled, or are not those of the transformer; the model predicts
            neither noise nor v; or the schedule is no growing share of noise.
    """
    if transformer.config.in_channels != vae.config.latent_channels:
        raise ModelFormatError(
            f"the transformer takes {transformer.config.in_channels} latent channels, "
            f"the VAE makes {vae.config.latent_channels}"
        )
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor
    if not (_is_finite(scale) and scale > 0 and (shift is None or _is_finite(shift))):
        raise ModelFormatError(
            f"the VAE's scaling_factor = {scale!r:.40} and shift_factor = {shift!r:.40}; accepted: a "
            "positive number, and a number or null; see the configuration of the VAE"
        )
    epsilon, groups = transformer.config.norm_eps, vae.config.norm_num_groups
    if not (_is_finite(epsilon) and epsilon > 0 and _is_finite(groups) and groups >= 1):
        raise ModelFormatError(
            f"the transformer's norm_eps = {epsilon!r:.40} and the VAE's norm_num_groups = {groups!r:.40}; "
            "accepted: a positive number, and one of at least 1"
        )
    predicted = scheduler.config.prediction_type
    if predicted not in PREDICTION_TYPES:
        raise ModelFormatError(
            f"the scheduler says the model predicts {predicted!r}; accepted: {list(PREDICTION_TYPES)}"
        )
    shares = scheduler.alphas_cumprod
    is_share = shares.dim() == 1 and len(shares) > 0 and bool(((shares >= 0) & (shares <= 1)).all())
    if not (is_share and shares[0] > 0 and bool((shares.diff() <= 0).all())):
        raise ModelFormatError(
            "the scheduler's betas do not make a share of noise that grows from 0 towards 1; betas lie "
            "between 0 and 1: see beta_start, beta_end, beta_schedule and trained_betas"
        )


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_label_map(model: str | Path, revision: str | None) -> dict[str, Any]:
    """Return `id2label` of a model's `model_index.json`: class label -> name. Empty if it has none.

    Args:
        model: A folder, or "ORG/NAME" on the Hub.
        revision: The commit of the latter.

    Raises:
        ModelNotFoundError: The Hub cannot be asked.
        ModelFormatError: The file is no JSON object, or `id2label` is none.
    """
    path, index = _read_index(model, revision)
    label_map = index.get("id2label") or {}
    if not isinstance(label_map, dict):
        raise ModelFormatError(f"{path}: id2label must be an object, not {label_map!r:.80}")
    return label_map


def read_padding(model: str | Path, revision: str | None, sample_size: int) -> int | None:
    """Return the black frame around the images a model was trained on; None where it does not say.

    Args:
        model: A folder, or "ORG/NAME" on the Hub.
        revision: The commit of the latter.
        sample_size: Side of the model's images, frame included.

    Raises:
        ModelNotFoundError: The Hub cannot be asked.
        ModelFormatError: The file is no JSON object, or the frame leaves no image.
    """
    path, index = _read_index(model, revision)
    padding = index.get(PADDING)
    if padding is None:
        return None
    if isinstance(padding, bool) or not isinstance(padding, int) or not 0 <= 2 * padding < sample_size:
        raise ModelFormatError(
            f"{path}: {PADDING} is {padding!r:.40}; accepted: the pixels of a frame on each side, less than "
            f"half of the model's {sample_size}"
        )
    return padding


def _read_index(model: str | Path, revision: str | None) -> tuple[Path, dict[str, Any]]:
    """Return where a model's `model_index.json` is, and what it says; nothing if there is none."""
    path = Path(model) / INDEX
    if revision is not None:
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            path = fetch_file(str(model), INDEX, MAX_CONFIG_BYTES, repo_type="model", revision=revision)
        except ArtifactFormatError as error:
            raise ModelFormatError(str(error)) from error
        except Exception as error:  # as above
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                return path, {}  # the Hub says that there is none
            raise ModelNotFoundError(
                f"{INDEX} of {model} at {revision}, which may hold its label map, could not be loaded: "
                f"{printable(error)}. Check the connection, or HF_HUB_OFFLINE and the Hub's cache"
            ) from error
    if not is_file(path):
        return path, {}
    try:
        return path, read_json(path, max_bytes=MAX_CONFIG_BYTES)
    except ArtifactFormatError as error:
        raise ModelFormatError(str(error)) from error


def _check_folder(folder: Path, revision: str | None, allow_bin: bool) -> None:
    if revision is not None:
        raise ModelNotFoundError(
            f"{folder} at revision {revision} is on the Hub, but a folder of that name hides it; leave "
            "out the revision to use the folder, or move it, or run in another folder"
        )
    weights = f"{WEIGHTS}*" + (".*" if allow_bin else ".safetensors")
    for pattern in (
        "transformer/config.json",
        f"transformer/{weights}",
        "vae/config.json",
        f"vae/{weights}",
        SCHEDULER,
    ):
        if not list(folder.glob(pattern)):
            raise ModelNotFoundError(
                f"{folder / pattern} is missing: a model folder holds transformer/, vae/ and "
                "scheduler/ as `DiTPipeline.save_pretrained` writes them, with safetensors"
            )


def _check_schedule(model: str | Path, config: dict[str, Any]) -> None:
    """Check that a scheduler's configuration has betas: diffusers reads any other as DDIM's defaults."""
    name = config.get("_class_name", "DDIMScheduler")
    if name != "DDIMScheduler" and "beta_schedule" not in config:
        raise ModelFormatError(
            f"the scheduler of the diffusion model {model} is {name}, which has no schedule of betas (flow "
            "matching and EDM have none); DDIM inverts models that predict noise or v on one: accepted are "
            "DDIMScheduler and those that share its betas (DDPMScheduler, EulerDiscreteScheduler, ...)"
        )


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
    return part
