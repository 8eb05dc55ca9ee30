"""What generating images takes: the model of an artifact, a device, a share of the work, PIL images."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import context
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch.utils.data import get_worker_info

from d3hr_datasets.artifact import Artifact
from d3hr_datasets.cache import ImageCache
from d3hr_datasets.class_list import ClassList
from d3hr_datasets.errors import CacheMissError, ConfigError, ModelFormatError

if TYPE_CHECKING:
    from d3hr_datasets.diffusion import LatentDiffusion


def load_model(
    artifact: Artifact, device: torch.device | str | None = None, torch_dtype: torch.dtype = torch.float32
) -> LatentDiffusion:
    """Load the diffusion model an artifact refers to and check that it fits.

    Raises:
        ModelNotFoundError: It is missing.
        ModelFormatError: Its latents, classes, image size or channels are not the artifact's, or its
            label map tells another order of the classes.
    """
    from d3hr_datasets.diffusion import LatentDiffusion

    info = artifact.info
    folder = artifact.model_folder()
    where = folder if folder is not None else str(info.model.repo_id)
    model = LatentDiffusion.from_pretrained(
        where, revision=info.model.revision, device=generation_device(device), torch_dtype=torch_dtype
    )
    model.check_fits(info)
    label_map = _label_map(folder, info.model.repo_id, info.model.revision)
    ClassList.of_artifact(info).check_label_map(label_map, f"the diffusion model {where}")
    return model


def _label_map(folder: Path | None, repo_id: str | None, revision: str | None) -> dict[str, str]:
    """Return `id2label` of a pipeline's `model_index.json`; empty if it has none."""
    if folder is None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            path = Path(hf_hub_download(str(repo_id), "model_index.json", revision=revision))
        except EntryNotFoundError:
            return {}
    else:
        path = folder / "model_index.json"
        if not path.is_file():
            return {}
    try:
        label_map = json.loads(path.read_text(encoding="utf-8")).get("id2label") or {}
    except (ValueError, AttributeError) as error:
        raise ModelFormatError(f"{path} is no JSON object: {error}; download or save it again") from error
    if not isinstance(label_map, dict):
        raise ModelFormatError(f"{path}: id2label must be an object, not {label_map!r:.80}")
    return label_map


def generation_device(device: torch.device | str | None) -> torch.device:
    """Return where to generate: `device` if it is given, else CUDA if there is one, else the CPU.

    Processes that `torchrun` or `accelerate launch` started take the GPU of their `LOCAL_RANK`.
    """
    if device is not None:
        return torch.device(device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = os.environ.get("LOCAL_RANK", "")
    if rank.isdecimal() and int(rank) < torch.cuda.device_count():
        return torch.device("cuda", int(rank))
    return torch.device("cuda")


def check_may_generate(device: torch.device | str | None, missing: str) -> None:
    """Check that this process can run a model: CUDA does not survive the fork of a DataLoader's worker.

    Raises:
        CacheMissError: It cannot; the message says what to do.
    """
    if get_worker_info() is None or not _is_forked() or generation_device(device).type != "cuda":
        return
    raise CacheMissError(
        f"{missing} is not in the cache, and a forked DataLoader worker cannot use CUDA to generate it. Call "
        "`dataset.materialize()` before the loader is iterated, or give the DataLoader num_workers=0 or "
        'multiprocessing_context="spawn"'
    )


def _is_forked() -> bool:
    process = multiprocessing.current_process()
    if isinstance(process, (context.SpawnProcess, context.ForkServerProcess)):
        return False
    return isinstance(process, context.ForkProcess) or multiprocessing.get_start_method() == "fork"


def process_share() -> tuple[int, int]:
    """Return (rank, number of processes) of `torch.distributed`, else of the environment, else (0, 1).

    Raises:
        ConfigError: RANK and WORLD_SIZE in the environment are no rank and size.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or size is None:
        return 0, 1
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ConfigError(
            f"RANK={rank!r} and WORLD_SIZE={size!r} in the environment are no rank below a size; unset them, "
            "or start the processes with `torchrun` or `accelerate launch`"
        )
    return int(rank), int(size)


def wait_for_other_processes() -> None:
    """Wait until every process of `torch.distributed` is here; does nothing without it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


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
