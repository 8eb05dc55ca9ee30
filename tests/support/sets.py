"""Small data sets of the tiny artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3hr_datasets import D3HRDataset
from tests.support.workers import item_digests

IPC = 3


def tiny_set(artifact: Path, root: Path, ipc: int = IPC, **options: Any) -> D3HRDataset:
    """Return a data set on the CPU, of three images per class."""
    return D3HRDataset(artifact, root, ipc, device="cpu", **options)


def image_digests(dataset: D3HRDataset) -> list[str]:
    """Return the SHA-256 of the pixels of every image."""
    return list(item_digests(dataset, list(range(len(dataset)))).values())
