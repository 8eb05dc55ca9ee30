"""Train the students of a table, several at a time: rows -> what the table says of each.

Every student has a folder of its own, so that a table goes on where it was interrupted, and tables share
what they have in common.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from tqdm import tqdm

from d3hr_datasets.errors import StudentError
from d3hr_datasets.experiments.student_inputs import check_inputs
from d3hr_datasets.experiments.student_run import run_student
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.experiments.table_rows import Row
from d3hr_datasets.students.scores import mean_std

Results = dict[tuple[str, int], dict[str, Any]]
METRICS = ("top1", "top5")
OF_A_ROW = (
    "num_images",
    "parameters",
    "teacher",
    "teacher_bytes",
    "label_bytes",
    "tested_on",
    "inputs",
    "device",
    "versions",
)
_epochs: Any = None  # of a worker: where it puts the share of a student that is done


def students_at_a_time() -> int:
    """Return how many students to train at a time: one on a GPU, else one for each core of this process."""
    on_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return 1 if on_gpu else _num_cores()


def _num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train_all(
    rows: list[Row], seeds: int, jobs: int, progress: bool = True, kept: Results | None = None
) -> Results:
    """Return the results of all students by (name of the row, seed), trained `jobs` at a time.

    Args:
        rows: Of the table.
        seeds: Students of each row.
        jobs: Processes.
        progress: Show a progress bar on stderr, with the time that is left.
        kept: Results that are there; these students are not trained.

    Raises:
        ConfigError: Something that a student needs is missing; before any is trained.
        StudentError: The process of one has ended.
    """
    tasks = {(row.name, seed): row.student(seed) for seed in range(seeds) for row in rows}
    kept = kept or {}
    tasks = {key: settings for key, settings in tasks.items() if key not in kept}
    for settings in tasks.values():
        check_inputs(settings)
    results: Results = {}
    context = multiprocessing.get_context("spawn")
    epochs = context.Queue()
    jobs = max(1, min(jobs, len(tasks)))
    threads = max(1, _num_cores() // jobs)
    bar = tqdm(total=len(tasks), unit="student", bar_format=BAR, mininterval=2, disable=not progress)
    with ProcessPoolExecutor(jobs, context, _prepare, (epochs, threads)) as pool, bar:
        waiting = {pool.submit(_train, settings): key for key, settings in tasks.items()}
        pool.submit(int)  # the pool watches the last process it started only from the next task on
        try:
            while waiting:
                done, _ = wait(waiting, timeout=0.5, return_when="FIRST_COMPLETED")
                _advance(bar, epochs, len(results))
                for future in done:
                    key = waiting.pop(future)
                    results[key] = future.result()
                    if progress:
                        bar.write(f"{key[0]}, seed {key[1]}: {results[key]['top1']:.2f} %", file=sys.stderr)
                    bar.n = max(bar.n, len(results))
                    bar.refresh()
        except BrokenProcessPool as error:
            raise StudentError(
                "the process of a student has ended before its student was trained, perhaps since memory ran "
                f"out: train fewer than {jobs} at a time (--jobs). Those that are finished are kept"
            ) from error
        except BaseException:
            _stop(pool)
            raise
    return {**kept, **results}


BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total} students [{elapsed}<{remaining}]"


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool at once; students go on from their checkpoints."""
    running = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in running:
        process.terminate()


def _prepare(epochs: Any, threads: int) -> None:
    global _epochs  # noqa: PLW0603 (a queue reaches a worker at its start only)
    _epochs = epochs
    epochs.cancel_join_thread()  # nobody may be there to read the last ones
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the process that started it is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(settings: StudentSettings) -> dict[str, Any]:
    """Train one student in a process of its own."""
    return run_student(settings, progress=False, on_epoch=lambda _: _epochs.put(1 / settings.epochs))


def _advance(bar: Any, epochs: Any, finished: int) -> None:
    """Add what workers have done since to a bar, which counts students."""
    before = bar.n
    while True:
        try:
            bar.n = min(bar.n + epochs.get_nowait(), bar.total)
        except queue.Empty:
            break
    bar.n = max(bar.n, finished)
    bar.update(0)  # shows it where that is due
    if bar.n - before >= 1:
        bar.refresh()


def summarize(row: Row, seeds: int, results: Results) -> dict[str, Any]:
    """Return what a table says of a row: mean and spread of its accuracies, and what its students were.

    Students that were kept say the command that made them: one for all, or one (or None) for each seed.
    """
    own = [results[row.name, seed] for seed in range(seeds)]
    differ = any(result.get("inputs") != own[0].get("inputs") for result in own)
    if differ and not row.has_images_by_seed:
        raise StudentError(
            f"students of {row.name!r} had different images or teachers: something has changed meanwhile. "
            "Train them again"
        )
    summary: dict[str, Any] = {"name": row.name, "set": row.settings}
    made_by = [result.get("made_by") for result in own]
    if any(made_by):  # some were kept from an earlier table
        summary = {"made_by": made_by[0] if len(set(made_by)) == 1 else made_by, **summary}
    for metric in METRICS:
        values = [result[metric] for result in own]
        mean, std = mean_std(values)
        summary[metric] = {"mean": mean, "std": std, "values": values}
    summary |= {key: own[0].get(key) for key in OF_A_ROW}
    summary["seconds"] = sum(result["seconds"] for result in own)
    summary["settings"] = {**own[0]["settings"], "seed": list(range(seeds))}
    return summary
