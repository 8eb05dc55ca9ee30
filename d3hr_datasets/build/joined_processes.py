"""The processes of a build: those that a launcher started, and how they wait for each other."""

from __future__ import annotations

import os
from typing import Any

import torch

from d3hr_datasets.errors import BuildError, ConfigError
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.processes import PATIENCE, process_share

__all__ = ["PATIENCE", "join_processes", "wait_for_processes"]


def join_processes() -> Any:
    """Return Accelerate's `PartialState`: this process's device and place among those it was launched with.

    Raises:
        MissingExtraError: Accelerate is not installed.
        ConfigError: It does not see the processes that were launched.
    """
    with needs_extra("build", "building needs Accelerate"):
        from accelerate import PartialState
    _, size = process_share()
    if size > 1 and not torch.distributed.is_initialized():
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        # After a restart torchrun's store still has the addresses of the processes that were there before.
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        start = f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        torch.distributed.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo",
            store=PrefixStore(start, store),
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    # Unless it is told that there is only the CPU, Accelerate takes each of several processes to be alone.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    if state.num_processes != size:
        raise ConfigError(
            f"{size} processes were launched, but Accelerate sees {state.num_processes}; start them with "
            "`accelerate launch` or `torchrun`, and make no PartialState of your own before"
        )
    return state


def wait_for_processes(processes: Any) -> None:
    """Wait until every process of a build is here.

    Raises:
        BuildError: One has ended before.
    """
    try:
        processes.wait_for_everyone()
    except RuntimeError as error:
        raise BuildError(
            f"another process of this build has ended ({str(error).splitlines()[0]}); run it again: finished "
            "chunks are kept"
        ) from error
