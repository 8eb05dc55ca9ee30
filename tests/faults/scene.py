"""What all parts of the campaign share: a clean run to compare with, forked processes, and the promises."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from d3hr_datasets import D3HRDataset
from d3hr_datasets.cache.inspection import verify_cached_set
from d3hr_datasets.cache.prune import prune_cache
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.support.tiny import save_tiny_artifact

IPC = 3
TIMEOUT = 120.0  # seconds until a process counts as hanging, on a busy machine
CLONE_NEWNS = 0x20000


class BrokenPromiseError(AssertionError):
    """The library did what it must never do."""


class WarmDataset(D3HRDataset):
    """A data set whose model was loaded before the process was forked."""

    warm: LatentDiffusion

    def model(self) -> LatentDiffusion:
        return self.warm


class Scene:
    """A tiny artifact, the images of a clean run, and the random choices of the campaign."""

    def __init__(self, folder: Path, seed: int) -> None:
        torch.set_num_threads(1)
        self.folder = folder
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.artifact = folder / "artifact"
        save_tiny_artifact(self.artifact, folder / "work")
        clean = D3HRDataset(self.artifact, folder / "clean", ipc=IPC, device="cpu")
        WarmDataset.warm = clean.model()
        clean.materialize(progress=False)
        self.pixels = [clean[index][0].tobytes() for index in range(len(clean))]
        self.fingerprint = clean.fingerprint
        begin = time.perf_counter()
        wait(fork(self.generate, folder / "timed"))
        self.seconds = time.perf_counter() - begin

    def dataset(self, root: Path) -> D3HRDataset:
        return WarmDataset(self.artifact, root, ipc=IPC, device="cpu")

    def generate(self, root: Path) -> None:
        """Generate what is missing and compare everything with the clean run."""
        dataset = self.dataset(root)
        dataset.materialize(progress=False)
        self.compare(dataset)

    def read(self, root: Path) -> None:
        """Read all images in another order, generating what is missing, and compare them."""
        dataset = self.dataset(root)
        order = list(range(len(dataset)))
        random.Random(os.getpid()).shuffle(order)
        for index in order:
            promise(dataset[index][0].tobytes() == self.pixels[index], f"image {index} differs")

    def compare(self, dataset: D3HRDataset) -> None:
        for index, expected in enumerate(self.pixels):
            promise(dataset[index][0].tobytes() == expected, f"image {index} differs from the clean run's")

    def check_what_is_there(self, root: Path) -> int:
        """Compare every image that the cache would serve; return how many there are."""
        cache = self.dataset(root).cache
        images = [cache.read(*divmod(index, IPC)) for index in range(len(self.pixels))]
        for index, image in enumerate(images):
            promise(image is None or image.tobytes() == self.pixels[index], f"image {index} is served wrong")
        return sum(image is not None for image in images)

    def check_recovery(self, root: Path, intact: dict[Path, tuple[int, int]]) -> None:
        """See that what was complete is untouched, the rest comes back, and no leftover grows or blocks."""
        promise(identities(list(intact)) == intact, "what was complete was lost or written again")
        wait(fork(self.generate, root), expected=0)
        promise(identities(list(intact)) == intact, "what was complete was written again")
        promise(
            verify_cached_set(root, self.dataset(root).cache.folder.name) == [], "not sound after recovery"
        )
        groups = Counter(path.name.rsplit(".", 3)[1] for path in leftovers(root, ".partial"))
        promise(max(groups.values(), default=0) <= 1, f"leftovers grow: {groups}")
        if self.random.random() < 0.5:
            prune_cache(root)
            promise(leftovers(root, ".partial") == leftovers(root, ".locks") == [], "prune leaves something")
            promise(identities(list(intact)) == intact, "prune touched what was complete")


def promise(kept: bool, what: str) -> None:
    """Stop the campaign if a promise is broken."""
    if not kept:
        raise BrokenPromiseError(what)


def intact_files(dataset: D3HRDataset) -> dict[Path, tuple[int, int]]:
    """Return the files of all complete groups with what shows whether they were written again."""
    folders = [
        dataset.image_folder / folder
        for label, folder in enumerate(dataset.cache.class_folders)
        if dataset.cache.is_complete(label)
    ]
    return identities([path for folder in folders for path in folder.iterdir()])


def identities(paths: list[Path]) -> dict[Path, tuple[int, int]]:
    """Return inode and time of modification of those of the files that exist."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths if path.exists()}


def leftovers(root: Path, kind: str) -> list[Path]:
    return sorted((root / kind).glob("*"))


def empty_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def fork(work: Callable[..., object], *arguments: object) -> int:
    """Run a function in a forked process, which exits with 0 if it returns; return the process id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    tqdm.set_lock(
        threading.RLock()
    )  # its default is shared with forked processes; a killed one would keep it
    faulthandler.dump_traceback_later(0.9 * TIMEOUT)  # where it hangs, if it does
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def wait(pid: int, expected: int | None = None) -> int:
    """Wait for a forked process; return its exit code, negative for a signal. Kill it if it hangs."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise BrokenPromiseError(f"a process hangs for more than {TIMEOUT} s")
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    promise(expected is None or code == expected, f"a process ended with {code}, not {expected}")
    return code


def own_mounts() -> None:
    """Give this process mounts of its own, which go away with it. Needs to be root on Linux."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("--make-rprivate", "/")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def can_mount() -> bool:
    """Say whether a process can mount something for itself alone."""

    def try_it() -> None:
        try:
            own_mounts()
        except (OSError, AttributeError, subprocess.CalledProcessError):
            os._exit(2)

    return wait(fork(try_it)) == 0
