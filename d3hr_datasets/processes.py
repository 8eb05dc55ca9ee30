"""The processes that generate: device, share of the classes, and what a forked worker cannot do."""

from __future__ import annotations

import multiprocessing
import os
from datetime import timedelta
from multiprocessing import context

import torch
from torch.utils.data import get_worker_info

from d3hr_datasets.errors import CacheMissError, ConfigError
from d3hr_datasets.numerics.devices import best_device_type

_LOST_BY_FORK = {"cuda", "mps"}  # devices that a forked process cannot use any more


def generation_device(device: torch.device | str | None) -> torch.device:
    """Return where to generate: `device` if it is given, else CUDA if there is one, else MPS, else the CPU.

    Processes that `torchrun` or `accelerate launch` started take the GPU of their `LOCAL_RANK`. MPS, the GPU
    of Apple's computers, was never run by this project: its tests imitate it. Latents are drawn on the CPU
    wherever images are generated, so the same seed means the same latents on every device.
    """
    if device is not None:
        return torch.device(device)
    if (found := best_device_type()) != "cuda":
        return torch.device(found)
    rank = os.environ.get("LOCAL_RANK", "")
    if rank.isdecimal() and int(rank) < torch.cuda.device_count():
        return torch.device("cuda", int(rank))
    return torch.device("cuda")


def check_may_generate(device: torch.device | str | None, missing: str) -> None:
    """Check that this process can run a model: no GPU survives the fork of a DataLoader's worker.

    Raises:
        CacheMissError: It cannot; the message says what to do.
    """
    if get_worker_info() is None or not _is_forked():
        return
    kind = generation_device(device).type
    if kind not in _LOST_BY_FORK:
        return
    raise CacheMissError(
        f"{missing} is not in the cache, and a forked DataLoader worker cannot use {kind.upper()} to "
        "generate it. Call `dataset.materialize()` before the loader is iterated, or give the DataLoader "
        'num_workers=0 or multiprocessing_context="spawn"'
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


# How long a process waits for the others: as long as the slowest needs. A launcher ends all if one dies.
PATIENCE = timedelta(days=30)


def wait_for_other_processes() -> None:
    """Wait until every process of `torch.distributed` is here; does nothing without it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
