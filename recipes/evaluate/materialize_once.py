"""Generate the embedded set in one way, and print what it cost as JSON: `recipes.evaluate.dataset` starts it.

    python -m recipes.evaluate.materialize_once WAY

A process of its own, since what an allocator has kept is not forgotten.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from unittest import mock

from d3hr_datasets import D3HRFashionMNIST
from d3hr_datasets.cache import filling

IPC = 10
AS_IT_IS = "materialize"
# What a way changes: arguments of the set, the size of batches, and the environment. `GLIBC_TUNABLES` gives
# glibc what it has by default, which counts as a choice of the user.
WAYS: dict[str, tuple[dict[str, Any], int | None, dict[str, str]]] = {
    AS_IT_IS: ({}, None, {}),
    "batches of one class": ({}, IPC, {}),
    "written by the same thread": ({}, None, {}),
    "glibc gives memory back": ({}, None, {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}),
    "nested": ({"nested": True}, None, {}),
}


class _SameThread:
    """An executor that does what it is given at once."""

    def __init__(self, threads: int) -> None:
        del threads

    def submit(self, call: Callable[..., None], *arguments: Any) -> Future[None]:
        future: Future[None] = Future()
        call(*arguments)
        future.set_result(None)
        return future

    def shutdown(self, **options: bool) -> None:
        del options


def measure(way: str) -> dict[str, float]:
    """Return what the second of two sets cost; in the first, the model is loaded and memory asked for."""
    options, batch_size, _ = WAYS[way]
    writers = _SameThread if way == "written by the same thread" else ThreadPoolExecutor
    with mock.patch.object(filling, "ThreadPoolExecutor", writers), tempfile.TemporaryDirectory() as root:
        warm = D3HRFashionMNIST(root, IPC, device="cpu", **options)
        warm.materialize(batch_size, progress=False)
        dataset = D3HRFashionMNIST(root, IPC, 1, device="cpu", **options)
        dataset._model = warm.model()
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        dataset.materialize(batch_size, progress=False)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        return {
            "images_per_second": len(dataset) / seconds,
            "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "page_faults": after.ru_minflt - before.ru_minflt,
        }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
