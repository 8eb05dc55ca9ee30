"""Everything that chooses by a comparison of sums, as digests, for several numbers of threads.

Run by tests in a process of its own (`OMP_WAIT_POLICY=PASSIVE` keeps threads from spinning on busy machines).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from d3hr_datasets import D3HRFashionMNIST, GroupSamplingConfig, RunningMoments, group_score, sample_group
from d3hr_datasets.clustering import fit_centroids, nearest_mode
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


def embedded_sets() -> Iterator[tuple[str, D3HRFashionMNIST]]:
    """Yield (name, set) of every size and sampler of the embedded artifact; nested ones hold the smaller."""
    artifact = D3HRFashionMNIST().artifact
    for name, sampling in SAMPLERS.items():
        for ipc in range(1, MAX_IPC + 1):
            yield f"{name}, ipc {ipc}", D3HRFashionMNIST(ipc=ipc, artifact=artifact, sampling=sampling)
        dataset = D3HRFashionMNIST(ipc=MAX_IPC, artifact=artifact, sampling=sampling, nested=True)
        yield f"{name}, nested", dataset


def embedded_groups() -> dict[str, str]:
    """Return the digest of every group of `embedded_sets`."""
    return {
        f"{name}, class {label}": digest(dataset.sample_latents(label))
        for name, dataset in embedded_sets()
        for label in range(len(dataset.classes))
    }


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
    centroids = fit_centroids(points, torch.arange(2000) % 2, 2, 8)
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
    assert torch.get_num_threads() == THREADS[-1], "k-means has changed the number of threads"
    return {name: digest(tensor) for name, tensor in found.items()}


class Groups(Dataset[str]):
    """The digests of a few of the groups, computed where they are asked for."""

    def __init__(self) -> None:
        sizes = {"modes, ipc 1", "modes, ipc 10", "modes, ipc 17", "search, ipc 10", "modes, nested"}
        self.sets = [(name, dataset) for name, dataset in embedded_sets() if name in sizes]

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


THREADS: list[int] = []


def main(what: str, *threads: str) -> None:
    """Print as JSON what a function of this module returns, for each number of threads."""
    found = {}
    for number in threads:
        torch.set_num_threads(int(number))
        THREADS.append(int(number))
        found[number] = globals()[what]()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
