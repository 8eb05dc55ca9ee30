"""A pool of processes that works in this one: a spawned process would import everything anew."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from d3hr_datasets.experiments import train_table


class PoolHere:
    """Stands in for the `ProcessPoolExecutor` of `train_table`."""

    def __init__(self, jobs: int, context: Any, prepare: Any, arguments: Any) -> None:
        train_table._epochs = arguments[0]

    def __enter__(self) -> PoolHere:
        return self

    def __exit__(self, *_: Any) -> None: ...

    def shutdown(self, **_: Any) -> None: ...

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future
