"""Artifacts, models, images, statistics, texts and Hubs that mean harm, each in a process of its own.

    python -m tests.faults.hostile --output hub/results/hostile.json

Each case must be refused by an error of this library, in at most two seconds and one gigabyte more than the
process had before; nothing outside of cache and output may be changed, and nothing secret get there.
`--every 10` tries every tenth case.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import resource
import shutil
import signal
import stat
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.errors import D3HRError
from tests.faults.hub import promise
from tests.faults.record import record

SECONDS, BYTES = 2.0, 10**9
TIMEOUT = 60  # seconds until a case is said to hang
ATTEMPTS = 3  # of a case that is too slow: the machine may be busy
SECRET = b"-----BEGIN OPENSSH PRIVATE KEY----- of the user's own"
WRITABLE = ("cache", "output", "home", "case")  # of the folder of a case; all else is others'

# Prepares files below a folder and returns what is tried on them, which is all that is measured.
Case = Callable[[Path], Callable[[], object]]


def try_case(name: str, case: Case, folder: Path) -> dict[str, Any]:
    """Run a case in a process of its own; return what came of it, with its time and memory."""
    for attempt in range(ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        outside = folder / "others"
        outside.mkdir(parents=True)
        for name_of_file in ("id_rsa", "victim.png", "README.md", "config.json"):
            (outside / name_of_file).write_bytes(SECRET)
        os.mkfifo(folder / "fifo")  # one of the places that are tried
        before = state(folder)
        found = {"seconds": 0.0, "bytes": 0, **in_child(case, folder)}
        promise(found.get("outcome") == "refused", f"{name}: {found}")
        changed = sorted(set(before.items()) ^ set(state(folder).items()))
        promise(not changed, f"{name}: what is others' was changed: {changed[:2]}")
        promise(not secrets(folder), f"{name}: a secret is in {secrets(folder)}")
        if found["seconds"] <= SECONDS:
            break
        promise(attempt < ATTEMPTS - 1, f"{name}: refused after {found['seconds']:.1f} s")
    promise(found["bytes"] <= BYTES, f"{name}: refused after {found['bytes']:,} bytes")
    return found


def in_child(case: Case, folder: Path) -> dict[str, Any]:
    """Fork, try, and return what the child says of it."""
    answer, path = {"outcome": "killed or hung"}, folder.with_name("answer.json")
    path.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            path.write_text(json.dumps(measured(case, folder)), encoding="utf-8")
        os._exit(0)
    deadline = time.monotonic() + TIMEOUT
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(0.002)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else answer


def measured(case: Case, folder: Path) -> dict[str, Any]:
    os.chdir(folder)
    work = case(folder)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    start, size = time.monotonic() - waited(), pages * resource.getpagesize()
    try:
        work()
        outcome = "accepted"
    except D3HRError as error:
        outcome = "refused" if len(str(error)) > 10 else f"refused without a reason: {error!r}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"[:500]
    seconds = time.monotonic() - waited() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"outcome": outcome, "seconds": seconds, "bytes": max(0, peak - size)}


def waited() -> float:
    """Return for how many seconds this process could have run and got no processor: the machine is busy."""
    return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


def state(folder: Path) -> dict[str, str]:
    """Return kind, mode and digest of everything below a folder that a case may not write."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] not in WRITABLE:
            kind = path.lstat().st_mode
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(kind) else ""
            found[str(name)] = f"{kind:o} {digest}"
    return found


def secrets(folder: Path) -> list[str]:
    """Return the files of cache and output that hold the secret, by a copy of their own."""
    places = [folder / place for place in ("cache", "output", "home")]
    files = [
        path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    return [str(path) for path in files if SECRET in path.read_bytes()]


def main() -> None:
    """Run the campaign and print its counts."""
    from tests.faults import hostile_cases

    parser = argparse.ArgumentParser(prog="python -m tests.faults.hostile", description=main.__doc__)
    parser.add_argument("--every", type=int, default=1, help="try each N-th case of a kind (default: all)")
    parser.add_argument("--output", type=Path, help="JSON file that gets the counts")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # or the processes that are forked wait for threads they do not have
    for name in ("d3hr_datasets", "huggingface_hub", "diffusers"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    counts, seconds, peak, begin = Counter[str](), 0.0, 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="d3hr-hostile-") as work:
        for kind, cases in hostile_cases.prepare(Path(work)).items():
            for name, case in list(cases.items())[:: arguments.every]:
                found = try_case(f"{kind}: {name}", case, Path(work) / "scene")
                counts[f"hostile: {kind}, refused"] += 1
                seconds, peak = max(seconds, found["seconds"]), max(peak, found["bytes"])
    total = counts.total()
    counts["hostile: milliseconds of the slowest"] = round(1000 * seconds)
    counts["hostile: megabytes of the largest"] = round(peak / 1e6)
    settings = {"every": arguments.every, "most_seconds": SECONDS, "most_bytes": BYTES}
    record(arguments.output, "hostile", settings, counts, time.monotonic() - begin)
    for name, count in sorted(counts.items()):
        print(f"{count:6d}  {name}")
    print(f"{total:6d}  cases, waiting for a processor left out, in at most {ATTEMPTS} attempts each")
    print(f"every promise kept, {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
