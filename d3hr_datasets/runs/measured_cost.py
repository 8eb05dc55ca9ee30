"""What work on many images costs, of a few batches on the machine at hand.

In: a function that works on a batch. Out: seconds an image, memory of the process and of the GPU.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

PATIENCE = 30.0  # seconds; batches do not grow beyond what this allows
REPEATS = 2  # of the largest batch
INTERVAL = 0.01  # seconds between two looks at the memory of the process


@dataclass(frozen=True)
class MeasuredCost:
    """What a few batches cost.

    Args:
        batch_size: Images of the largest batch that was measured.
        largest_batch: Images that a batch of the work has; fewer where they do not fit into memory.
        seconds_per_image: In batches of `batch_size`.
        device: Where it ran, as in PyTorch.
        process_bytes: Peak of the process's memory, that of all it has done so far or with the largest batch;
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


@dataclass(frozen=True)
class _Batch:
    """What one batch took: images, seconds, and the most memory of the process and the GPU in bytes."""

    size: int
    seconds: float
    process: int | None
    gpu: int | None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether PyTorch says of an error that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError)


def measure_cost(
    work: Callable[[int], object],
    batch_size: int,
    device: torch.device,
    patience: float = PATIENCE,
    is_full: Callable[[RuntimeError], bool] = is_out_of_memory,
) -> MeasuredCost:
    """Run batches of one image, two, four, ..., as long as it takes few seconds, and say what they cost.

    Those of one and of two are run in any case, the first time without a clock: what is compiled is compiled
    then, once for one image and once for more. Memory of batches that would take too long is taken to grow
    with their images, as it does between the first batch and the largest that ran.

    Args:
        work: Works on a batch of so many images, and waits until the device has done it.
        batch_size: Images of a batch of the work.
        device: Where it runs.
        patience: Seconds after which batches are large enough.
        is_full: Says of an error whether memory ran out, as whoever does the work later finds.

    Raises:
        torch.OutOfMemoryError: Not even one image fits into memory.
    """

    def run(size: int) -> _Batch:
        try:
            return _run(work, size, device)
        except RuntimeError as error:
            if not is_full(error):
                raise
            raise torch.OutOfMemoryError(str(error)) from error

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    first, last, largest = _warm(run, batch_size)
    start = time.perf_counter()
    while last.size < largest and time.perf_counter() - start + 2 * last.seconds < patience:
        try:
            last = run(min(2 * last.size, batch_size))
        except torch.OutOfMemoryError:
            largest = last.size
            torch.cuda.empty_cache()
            break
    seconds = last.seconds
    for _ in range(REPEATS):
        if time.perf_counter() - start + seconds < patience:
            seconds = min(seconds, run(last.size).seconds)
    share = 0.0 if last.size == 1 else (largest - last.size) / (last.size - 1)
    process, gpu = (
        None if before is None or after is None else round(after + share * max(0, after - before))
        for before, after in ((first.process, last.process), (first.gpu, last.gpu))
    )
    peak = _peak()
    if process is not None and peak is not None:
        process = max(process, peak)
    total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None
    return MeasuredCost(last.size, largest, seconds / last.size, str(device), process, gpu, total)


def _warm(run: Callable[[int], _Batch], batch_size: int) -> tuple[_Batch, _Batch, int]:
    """Return a batch of one image and one of two, if it fits, and the images of the largest that may."""
    run(1)  # compiles, and opens what is opened once
    first = run(1)
    if batch_size == 1:
        return first, first, 1
    try:
        run(2)  # compiles for more than one
        return first, run(2), batch_size
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()  # does nothing without CUDA
        return first, first, 1


def _run(work: Callable[[int], object], size: int, device: torch.device) -> _Batch:
    """Work on a batch, and look at the memory of the process meanwhile.

    The peak that the system knows never falls: it may be that of loading a model, and say nothing of batches.
    """
    done, seen = threading.Event(), [_memory()]

    def watch() -> None:
        while not done.wait(INTERVAL):
            seen.append(_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        work(size)
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    seen.append(_memory())
    known = [number for number in seen if number is not None]
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return _Batch(size, seconds, max(known, default=None), gpu)


def _memory() -> int | None:
    """Return the memory of the process now; its peak so far where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):  # not Linux
        return _peak()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int | None:
    """Return the peak of the process's memory so far in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)
