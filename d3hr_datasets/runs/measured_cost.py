"""What work on many images costs, of a few batches on the machine at hand.

In: a function that works on a batch. Out: seconds an image, memory of the process and of the GPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

PATIENCE = 30.0  # seconds; batches do not grow beyond what this allows
REPEATS = 2  # of the largest batch


@dataclass(frozen=True)
class MeasuredCost:
    """What a few batches cost.

    Args:
        batch_size: Images of the largest batch that was measured.
        largest_batch: Images that a batch of the work has; fewer where they do not fit into memory.
        seconds_per_image: In batches of `batch_size`.
        device: Where it ran, as in PyTorch.
        process_bytes: Peak of the process's memory with the largest batch, from all that it has done so far;
            None where the system does not tell.
        gpu_bytes: The same of what PyTorch allocated on the GPU; None where it ran on none.
        gpu_total_bytes: Memory of the GPU.
    """

    batch_size: int
    largest_batch: int
    seconds_per_image: float
    device: str
    process_bytes: int | None
    gpu_bytes: int | None = None
    gpu_total_bytes: int | None = None


def measure_cost(
    work: Callable[[int], object], batch_size: int, device: torch.device, patience: float = PATIENCE
) -> MeasuredCost:
    """Run batches of one image, two, four, ..., as long as it takes few seconds, and say what they cost.

    Memory of batches that would take too long is taken to grow with their images, as it does between the
    first batch and the largest that ran.

    Args:
        work: Works on a batch of so many images, and waits until the device has done it.
        batch_size: Images of a batch of the work.
        device: Where it runs.
        patience: Seconds after which batches are large enough.

    Raises:
        torch.OutOfMemoryError: Not even one image fits into memory.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    work(1)  # compiles, and opens what is opened once
    small, size, seconds, largest = _peaks(device), 1, _seconds(work, 1), batch_size
    while size < batch_size and time.perf_counter() - start + 2 * seconds < patience:
        try:
            seconds, size = _seconds(work, min(2 * size, batch_size)), min(2 * size, batch_size)
        except torch.OutOfMemoryError:
            largest = size
            torch.cuda.empty_cache()
            break
    for _ in range(REPEATS):
        if time.perf_counter() - start + seconds < patience:
            seconds = min(seconds, _seconds(work, size))
    share = 0.0 if size == 1 else (largest - size) / (size - 1)
    process, gpu = (
        None if before is None or after is None else round(after + share * (after - before))
        for before, after in zip(small, _peaks(device), strict=True)
    )
    total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None
    return MeasuredCost(size, largest, seconds / size, str(device), process, gpu, total)


def _seconds(work: Callable[[int], object], size: int) -> float:
    start = time.perf_counter()
    work(size)
    return time.perf_counter() - start


def _peaks(device: torch.device) -> tuple[int | None, int | None]:
    """Return the peaks of memory so far, of the process and of what PyTorch allocated on a GPU, in bytes."""
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    try:
        import resource
    except ImportError:  # Windows
        return None, gpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024), gpu
