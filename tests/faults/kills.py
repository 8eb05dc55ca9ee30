"""SIGKILL at random moments, with one to four processes generating the same set."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3hr_datasets import D3HRDataset
from d3hr_datasets.cache.prune import prune_cache
from tests.faults.scene import Scene, fork, intact_files, promise, wait
from tests.support.tampering import flip_byte, truncate

# Calls that change files or locks; a victim can die before or after any of them.
CALLS = ("fsync", "mkdir", "open", "rename", "replace", "rmdir", "unlink")


def run(scene: Scene, rounds: int) -> None:
    done = 0
    while done < rounds:
        root = scene.folder / f"killed-{done // 20}"  # twenty rounds in one cache: leftovers would add up
        if _round(scene, root):
            done += 1
            scene.counts["kill: rounds"] += 1
        else:  # those to be killed had ended before
            scene.counts["kill: rounds without a kill, not counted"] += 1
    for root in scene.folder.glob("killed-*"):
        shutil.rmtree(root)


def _round(scene: Scene, root: Path) -> bool:
    """Kill some of one to four processes and see what is left; say whether any was killed."""
    dataset = scene.dataset(root)
    _set_back(scene, dataset)
    intact = intact_files(dataset)
    processes = scene.random.randint(1, 4)
    begin = time.monotonic()
    moments: list[tuple[float, int]] = []
    running = []
    for _ in range(processes):
        work = scene.random.choice([scene.generate, scene.read])
        way = scene.random.choice(
            ["moment", "call", "call", "survives"] if processes > 1 else ["moment", "call"]
        )
        if way == "call":
            at, after = scene.random.randint(1, 30), scene.random.random() < 0.5
            running.append(fork(dying, work, root, at, after))
        else:
            running.append(fork(work, root))
        if way == "moment":
            moments.append((scene.random.uniform(0, scene.seconds), running[-1]))
    if scene.random.random() < 0.3:
        running.append(fork(lambda: prune_cache(root, damaged=True)))
        scene.counts["kill: rounds with a process that prunes"] += 1
    for moment, pid in sorted(moments):
        time.sleep(max(0.0, begin + moment - time.monotonic()))
        os.kill(pid, signal.SIGKILL)  # one that has ended is still there to be waited for
    codes = [wait(pid) for pid in running]
    killed = codes.count(-signal.SIGKILL)
    promise(killed + codes.count(0) == len(codes), f"a process that was not killed ended with one of {codes}")
    scene.counts["kill: processes killed"] += killed
    scene.counts["kill: processes that came to their end"] += len(codes) - killed
    scene.counts["kill: images compared right after"] += scene.check_what_is_there(root)
    scene.check_recovery(root, intact)
    if killed:
        scene.counts[f"kill: rounds with {processes} generating"] += 1
    return killed > 0


def _set_back(scene: Scene, dataset: D3HRDataset) -> None:
    """Remove or damage some of what earlier rounds generated, so that there is something to do."""
    if scene.random.random() < 0.2:
        shutil.rmtree(dataset.image_folder, ignore_errors=True)
    for label, name in enumerate(dataset.cache.class_folders):
        group = dataset.image_folder / name
        choice = scene.random.random()
        if not group.exists() or choice < 0.2:
            continue
        if choice < 0.7:
            shutil.rmtree(group)
        else:
            damage = scene.random.choice([flip_byte, truncate, Path.unlink])
            damage(dataset.cache.path(label, scene.random.randrange(dataset.ipc)))


def dying(work: Callable[[Path], None], root: Path, at: int, after: bool) -> None:
    """Do some work, and be killed before or after a given call into the file system."""
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            mine = calls == at
            if mine and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    work(root)
