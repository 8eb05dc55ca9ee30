"""Everything that chooses by a comparison of sums, as digests, for several numbers of threads.

Run by tests in a process of its own (`OMP_WAIT_POLICY=PASSIVE` keeps threads from spinning on busy machines).
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from d3hr_datasets import (
    ClassGaussians,
    ClassModes,
    D3HRFashionMNIST,
    GroupSamplingConfig,
    RunningMoments,
    group_score,
    sample_group,
    sample_modes,
)
from d3hr_datasets.build.clustering import nearest_mode
from d3hr_datasets.build.mode_points import ModePoints
from d3hr_datasets.sampling.nested_sampling import sample_nested
from d3hr_datasets.students.selection import herding, k_center

MAX_IPC = 60
SAMPLERS = {
    "modes": GroupSamplingConfig("modes"),
    "moment_matched": GroupSamplingConfig("moment_matched"),
    "search": GroupSamplingConfig("search", num_candidates=3),
    "independent": GroupSamplingConfig("search", num_candidates=1),
}
SHAPE = (4, 97, 95)  # torch.sum shares more than 32,768 numbers among threads


def digest(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of a tensor's bits."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def embedded_groups() -> dict[str, str]:
    """Return the digest of every group of the embedded artifact; a nested one holds the smaller ones."""
    artifact, found = D3HRFashionMNIST().artifact, {}
    timestep = artifact.info.decode.timestep
    for label in range(len(artifact.info.classes)):
        modes, gaussian = artifact.modes(timestep, label), artifact.gaussians(timestep, label)

        def draw(
            ipc: int,
            config: GroupSamplingConfig,
            label: int = label,
            modes: ClassModes = modes,
            gaussian: ClassGaussians = gaussian,
        ) -> torch.Tensor:
            if config.method == "modes":
                return sample_modes(modes, ipc, label, config)
            return sample_group(gaussian.mean[0], gaussian.variance[0], ipc, label, config)

        for name, config in SAMPLERS.items():
            for ipc in range(1, MAX_IPC + 1):
                found[f"{name}, ipc {ipc}, class {label}"] = digest(draw(ipc, config))
            found[f"{name}, nested, class {label}"] = digest(sample_nested(draw, MAX_IPC, config))
    return found


def large_sums() -> dict[str, str]:
    """Return digests of what is computed of large latents and features."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(60, *SHAPE, generator=generator) + 1
    labels = torch.arange(60) % 3
    moments = RunningMoments(3, SHAPE)
    for part in range(0, 60, 20):
        moments.update(latents[part : part + 20], labels[part : part + 20])
    gaussians = moments.gaussians()
    points = torch.randn(2000, 4, 4, 4, generator=generator)
    joined = [ModePoints(8, points[0].numel()) for _ in range(2)]
    for label, one in enumerate(joined):
        one.update(points[label::2])
    centroids = torch.stack([one.centroids() for one in joined]).view(2, 8, *points.shape[1:])
    found = {
        "mean": gaussians.mean,
        "variance": gaussians.variance,
        "modes": moments.modes(3).variance,
        "centroids": centroids,
        "nearest mode": nearest_mode(points, torch.arange(2000) % 2, centroids),
        "score": group_score(latents, gaussians.mean[0], gaussians.variance[0], SAMPLERS["search"]),
        "herding": herding(latents.flatten(1), 20),
        "k-center": k_center(latents.flatten(1), 20),
    }
    for name, config in SAMPLERS.items():
        if name != "modes":
            found[name] = sample_group(gaussians.mean[0], gaussians.variance[0], 11, 0, config)
    return {name: digest(tensor) for name, tensor in found.items()}


class Groups(Dataset[str]):
    """The digests of a few of the groups, computed where they are asked for."""

    def __init__(self) -> None:
        self.sets = [
            (f"{name}, ipc {ipc}", D3HRFashionMNIST(ipc=ipc, sampling=SAMPLERS[name], nested=nested))
            for name, ipc, nested in (
                ("modes", 1, False),
                ("modes", 10, False),
                ("modes", 17, False),
                ("search", 10, False),
                ("modes", 20, True),
            )
        ]

    def __len__(self) -> int:
        return 10 * len(self.sets)

    def __getitem__(self, index: int) -> str:
        name, dataset = self.sets[index // 10]
        return f"{name}: {digest(dataset.sample_latents(index % 10))}"


def of_workers() -> dict[str, list[str]]:
    """Return some groups as this process and DataLoader workers, forked and spawned, compute them."""
    groups = Groups()
    found = {"main": [groups[index] for index in range(len(groups))]}
    for context in ("fork", "spawn"):
        loader = DataLoader(groups, None, num_workers=1, multiprocessing_context=context)
        found[context] = list(loader)
    return found


def images_and_latents() -> dict[str, Any]:
    """Return groups as numbers, and images that were made in batches of two sizes."""
    found: dict[str, Any] = {"latents": {}, "pixels": {}}
    artifact = D3HRFashionMNIST().artifact
    for name, sampling in SAMPLERS.items():
        dataset = D3HRFashionMNIST(ipc=5, artifact=artifact, sampling=sampling)
        found["latents"][name] = [dataset.sample_latents(label).flatten().tolist() for label in (4, 8)]
    with tempfile.TemporaryDirectory() as root:
        for batch_size in (0, 3):
            dataset = D3HRFashionMNIST(Path(root) / str(batch_size), ipc=10, artifact=artifact, classes=[4])
            if batch_size:
                dataset.materialize(batch_size, progress=False)
            images = [list(dataset[index][0].tobytes()) for index in range(len(dataset))]
            found["pixels"][str(batch_size)] = images
            found["set"] = dataset.image_folder.name
    return found


def main(functions: str, *threads: str) -> None:
    """Print as JSON what functions of this module return, by name, for each number of threads."""
    found: dict[str, dict[str, Any]] = {name: {} for name in functions.split(",")}
    for number in threads:
        torch.set_num_threads(int(number))
        for name, of_threads in found.items():
            of_threads[number] = globals()[name]()
            assert torch.get_num_threads() == int(number), f"{name} has changed the number of threads"
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
