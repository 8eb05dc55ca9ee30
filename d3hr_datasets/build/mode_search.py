"""The search for the modes of all classes, by any number of processes: images -> centroids.

1. Each process encodes its share of the images; latents go to the disk (`mode_latents`). In memory are those
   of one chunk: `chunk_size` x D x 4 bytes, twice. Where few of a class were drawn, it is looked at again.
2. Each process takes its share of the classes, some at a time, reads what the files have of them in the order
   of the images, and clusters them (`mode_points`). The centroids of a class are a file, too. A class holds
   HELD_PER_MODE x M x D x 4 bytes at most, as many classes are held at a time as fit into GROUP_BYTES (at
   least one), and clustering one takes four times its own bytes besides.
3. The first process puts the centroids of all classes into one file, K x M x D x 4 bytes (twice
   while it writes them), which all hold while they build.

So memory grows with modes and not with images. For K = 1,000 classes of M = 50 modes, D = 4,096 elements of a
latent and chunks of 2,048 images that is 0.07 GB, then 0.5 + 0.3 GB, then 1.6 GB, besides the model. No step
depends on the number of processes: centroids are the same to the last bit.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.build.chunks import load_tensors, save_tensors
from d3hr_datasets.build.joined_processes import wait_for_processes
from d3hr_datasets.build.mode_latents import ModeLatents, damaged, read_latents
from d3hr_datasets.build.mode_points import HELD_PER_MODE, ModePoints
from d3hr_datasets.errors import StatisticsError
from d3hr_datasets.numerics.torch_settings import neutral

GROUP_BYTES = 512 * 2**20  # of the latents of the classes that are clustered one after the other


@neutral()
def find_modes(latents: ModeLatents, processes: Any, progress: bool = False) -> torch.Tensor:
    """Find the centroids of the modes of every class, or read those an earlier run found in the same images.

    Every process of a build calls this, and each does its share.

    Args:
        latents: In which modes are sought.
        processes: As of `join_processes`.
        progress: Show bars on stderr, of what the first process does.

    Returns:
        (K, M, C, H, W) float32.

    Raises:
        StatisticsError: A class has no more images than modes.
        UnreadableImageError: An image cannot be read, and none may be left out.
        MissingExtraError: scikit-learn is not installed.
        BuildError: Another process has ended, or files were damaged meanwhile.
    """
    path = latents.prefix.with_name(f"{latents.prefix.name}-modes.safetensors")
    centroids = _read(path, latents.identity)
    wait_for_processes(processes)  # what one of them has found all have: nobody writes before
    if centroids is None:
        place = processes.process_index, processes.num_processes
        shown = progress and processes.is_main_process
        _make(latents, *place, shown)
        wait_for_processes(processes)
        if latents.look_again():
            _make(latents, *place, shown)
            wait_for_processes(processes)
        # In every process, so that none waits for another.
        check_sought(latents.counts(), latents.info, " (all its images that can be read were looked at)")
        _cluster(latents, *place, shown)
        wait_for_processes(processes)
        if processes.is_main_process:
            _collect(path, latents)
        wait_for_processes(processes)
        centroids = _read(path, latents.identity)
    if centroids is None:
        raise damaged(path)
    if processes.is_main_process:
        latents.remove()  # also what a run left that was killed
        for one in latents.prefix.parent.glob(f"{latents.prefix.name}-*.centroids.safetensors"):
            one.unlink(missing_ok=True)
    return centroids


def _make(latents: ModeLatents, rank: int, num_processes: int, progress: bool) -> None:
    """Make the files of one process."""
    total = None if latents.num_sought is None else -(-latents.num_sought // num_processes)
    with _bar(progress, total, "looking for modes", " images") as advance:
        latents.make(rank, num_processes, advance)


@contextlib.contextmanager
def _bar(shown: bool, total: int | None, what: str, unit: str) -> Iterator[Callable[[int], object]]:
    """Return what is told how far it is; even a bar that shows nothing takes a lock, so there may be none."""
    if not shown:
        yield lambda number: None
        return
    with tqdm(total=total, desc=what, unit=unit) as bar:
        yield bar.update


def _read(path: Path, identity: str) -> torch.Tensor | None:
    """Return centroids that were found in the same images; None where there are none."""
    loaded = load_tensors(path)
    if loaded is None or loaded[1].get("identity") != identity:
        return None
    return loaded[0].get("centroids")


def check_sought(counts: torch.Tensor, info: ArtifactInfo, looked_at: str = "") -> None:
    """Check that there are enough images of each class to find its modes in.

    Args:
        counts: (K,), images of each class.
        info: What is built.
        looked_at: What the counts are of, to be said after them.

    Raises:
        StatisticsError: A class has no more images than modes.
    """
    label = int(counts.argmin())
    number = int(counts[label])
    if number <= info.num_modes:
        raise StatisticsError(
            f"class label {label} ({info.classes[label]}) has {number} images to find {info.num_modes} modes "
            f"in{looked_at}, and needs more images than modes; add images, or build with --modes "
            f"{max(1, number - 1)} at most (--modes 1 stores none)"
        )


def _cluster(latents: ModeLatents, rank: int, num_processes: int, progress: bool) -> None:
    """Find the centroids of every so manieth class that are missing, and write them."""
    info = latents.info
    size = math.prod(info.latent_shape)
    labels = [
        label
        for label in range(rank, len(info.classes), num_processes)
        if _read(_class_path(latents, label), latents.identity) is None
    ]
    at_once = max(1, GROUP_BYTES // (4 * HELD_PER_MODE * info.num_modes * size))
    with _bar(progress, len(labels), "finding modes", " classes") as advance:
        for first in range(0, len(labels), at_once):
            points = {label: ModePoints(info.num_modes, size) for label in labels[first : first + at_once]}
            for path in latents.files():
                for label, found in read_latents(path, list(points)).items():
                    points[label].update(found)
            for label in list(points):
                centroids = points.pop(label).centroids().view(info.num_modes, *info.latent_shape)
                notes = {"identity": latents.identity}
                save_tensors(_class_path(latents, label), {"centroids": centroids}, notes)
                advance(1)


def _collect(path: Path, latents: ModeLatents) -> None:
    """Write the centroids of all classes into one file.

    Raises:
        BuildError: Those of a class were damaged.
    """
    info = latents.info
    centroids = torch.empty(len(info.classes), info.num_modes, *info.latent_shape)
    for label in range(len(info.classes)):
        one = _read(_class_path(latents, label), latents.identity)
        if one is None:
            raise damaged(_class_path(latents, label))
        centroids[label] = one
    save_tensors(path, {"centroids": centroids}, {"identity": latents.identity})


def _class_path(latents: ModeLatents, label: int) -> Path:
    return latents.prefix.with_name(f"{latents.prefix.name}-{label:05d}.centroids.safetensors")
