"""What tests run in other processes. Imports neither diffusers nor `tests.support.tiny`, to start fast."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from threading import Barrier
from typing import Any

import torch
from torch.utils.data import DistributedSampler

from d3hr_datasets import D3HRDataset
from d3hr_datasets.dataset.generated_set import GeneratedSet


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def item_digests(dataset: D3HRDataset, order: list[int]) -> dict[str, str]:
    """Return the SHA-256 of the pixels of images, read in the order given, by index."""
    return {str(index): hashlib.sha256(dataset[index][0].tobytes()).hexdigest() for index in order}


def generate_together(artifact: str, root: str, ipc: int, barrier: Barrier, results: Any) -> None:
    """Generate a set at the same time as another process; put the digests of the files into `results`."""
    torch.set_num_threads(1)
    dataset = D3HRDataset(artifact, root, ipc=ipc, device="cpu")
    dataset.model()
    barrier.wait(timeout=600)
    dataset.materialize(progress=False)
    results.put(file_digests(dataset.image_folder))


def read_shares(rank: int, datasets: list[D3HRDataset], store: str, results: Any) -> None:
    """Be one of two processes: materialize together, then read what a `DistributedSampler` gives.

    Puts (rank, for each data set the labels generated here and the pixels read here) into `results`.
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    results.put((rank, [_read_share(dataset) for dataset in datasets]))
    torch.distributed.destroy_process_group()


def _read_share(dataset: D3HRDataset) -> dict[str, Any]:
    made: list[int] = []
    ensure = dataset.cache.ensure_each
    dataset.cache.ensure_each = lambda labels, make: (made.extend(labels), ensure(labels, make))[1]  # type: ignore
    dataset.materialize(progress=False)
    missing = [label for label in range(3) if not dataset.cache.is_complete(label)]
    assert not missing, missing
    indices: list[int] = list(DistributedSampler(dataset, shuffle=True))
    return {"made": made, "items": {i: dataset[i][0].tobytes() for i in indices}}


def set_epochs(rank: int, dataset: D3HRDataset, store: str, results: Any) -> None:
    """Be one of two processes: go through two epochs together, then to one of its own.

    Puts (rank, the labels generated here, the pixels of epoch 2, the epoch in the end) into `results`.
    """
    torch.set_num_threads(1)
    made: list[int] = []
    make = GeneratedSet.make
    GeneratedSet.make = lambda self, labels, *rest: (made.extend(labels), make(self, labels, *rest))[1]  # type: ignore
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
    digests = list(item_digests(dataset, list(range(len(dataset)))).values())
    together = list(made)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    dataset.set_epoch(7 + rank)
    results.put((rank, {"made": together, "digests": digests, "alone": dataset.epoch}))


def main(artifact: str, root: str, ipc: str) -> None:
    """Print as JSON the digests of all items, read backwards, in a process whose global seed is another."""
    torch.set_num_threads(1)
    torch.manual_seed(12345)
    dataset = D3HRDataset(artifact, root, ipc=int(ipc), device="cpu")
    print(json.dumps(item_digests(dataset, list(reversed(range(len(dataset)))))))


if __name__ == "__main__":
    main(*sys.argv[1:])
