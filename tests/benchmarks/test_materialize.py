"""Generating fifty images of a class together, next to one at a time as the reference code does.

`make bench` prints both: seconds for fifty images of the tiny model and of the embedded one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d3hr_datasets import D3HRDataset
from d3hr_datasets.generation import to_pil
from d3hr_datasets.registry import embedded_artifact

IPC = 50


def _dataset(kind: str, root: Path, tiny: Path) -> D3HRDataset:
    artifact = tiny if kind == "tiny" else embedded_artifact("fashion-mnist")
    dataset = D3HRDataset(artifact, root, IPC, classes=[0])
    dataset.model()
    return dataset


def _one_at_a_time(dataset: D3HRDataset) -> np.ndarray[Any, Any]:
    model, latents = dataset.model(), dataset.sample_latents(0)
    images = [model.decode(model.denoise(z, dataset.class_labels, dataset.decode)) for z in latents.split(1)]
    return np.stack([np.asarray(image) for image in to_pil(torch.cat(images), dataset.artifact.info.padding)])


@pytest.mark.parametrize("way", ["one_at_a_time", "materialize"])
@pytest.mark.parametrize("kind", ["tiny", "embedded"])
def test_fifty_images(kind: str, way: str, tmp_path: Path, tiny_artifact: Path, benchmark: Any) -> None:
    dataset = _dataset(kind, tmp_path, tiny_artifact)
    benchmark._timer = time.process_time
    benchmark.group = f"{kind} model"
    if way == "one_at_a_time":
        benchmark.pedantic(lambda: _one_at_a_time(dataset), rounds=1)
        return
    benchmark.pedantic(lambda: dataset.materialize(progress=False), rounds=1)
    expected = _one_at_a_time(dataset).astype(int)
    found = np.stack([np.asarray(dataset[index][0]) for index in range(IPC)]).astype(int)
    assert np.abs(found - expected).max() <= 1
