"""Generating fifty images of a class together, next to one at a time as the reference code does.

One at a time: each image is denoised with both halves of the guidance in one pass, decoded and saved by
itself. Together: `materialize`, with checksums, syncs and all. Times are those of a wall clock, so the
machine must have nothing else to do. The embedded set is also made in the 22 passes of eleven steps of DDIM,
as the first artifact was, instead of in its own few. `matmul` is what the machine can do at best: the
operations of one image at the rate of a large float32 product. No way of batching gets beyond that.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from d3hr_datasets import D3HRDataset, DecodeConfig
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.diffusion.pixel_range import to_pil

IPC = 50
MANY_STEPS = 25  # of the whole grid: eleven from timestep 400
THREADS = sorted({1, os.cpu_count() or 1})


@pytest.fixture(params=THREADS)
def threads(request: pytest.FixtureRequest) -> Any:
    """Run with one thread, then with one for every core."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["tiny", "embedded"])
def dataset(
    request: pytest.FixtureRequest, tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> D3HRDataset:
    """Return fifty images of one class, with the model loaded."""
    artifact = tiny_artifact if request.param == "tiny" else embedded_artifact("fashion-mnist")
    dataset = D3HRDataset(artifact, tmp_path_factory.mktemp("root"), IPC, classes=[0], device="cpu")
    dataset.model()
    return dataset


def _generate(dataset: D3HRDataset, latents: torch.Tensor) -> torch.Tensor:
    model = dataset.model()
    return model.decode(model.denoise(latents, dataset.class_labels, dataset.decode))


def _one_at_a_time(dataset: D3HRDataset, folder: Path) -> np.ndarray[Any, Any]:
    arrays = []
    for index, latents in enumerate(dataset.sample_latents(0).split(1)):
        [image] = to_pil(_generate(dataset, latents), dataset.artifact.info.padding)
        image.save(folder / f"{index}.png")
        arrays.append(np.asarray(image))
    return np.stack(arrays).astype(int)


def _describe(benchmark: Any, dataset: D3HRDataset, threads: int, way: str) -> None:
    benchmark.group = f"{IPC} images of {dataset.artifact.info.name}, {threads} threads"
    benchmark.extra_info.update(way=way, baseline="one at a time", images=IPC)
    if way != "matmul":
        benchmark.extra_info["passes"] = dataset.model().forward_passes(dataset.decode)


def test_one_at_a_time(dataset: D3HRDataset, threads: int, tmp_path: Path, benchmark: Any) -> None:
    _describe(benchmark, dataset, threads, "one at a time")
    benchmark.pedantic(_one_at_a_time, (dataset, tmp_path), rounds=3)


def test_materialize(dataset: D3HRDataset, threads: int, tmp_path: Path, benchmark: Any) -> None:
    _describe(benchmark, dataset, threads, "materialize")

    def forget() -> None:
        shutil.rmtree(dataset.image_folder, ignore_errors=True)

    benchmark.pedantic(lambda: dataset.materialize(progress=False), setup=forget, rounds=3)
    found = np.stack([np.asarray(dataset[index][0]) for index in range(IPC)]).astype(int)
    assert np.abs(found - _one_at_a_time(dataset, tmp_path)).max() <= 1


@pytest.mark.parametrize("compiled", [False, True])
def test_materialize_in_many_steps(
    dataset: D3HRDataset, threads: int, compiled: bool, tmp_path: Path, benchmark: Any
) -> None:
    if dataset.artifact.info.name == "tiny":
        pytest.skip("it is made in many steps anyway")
    decode = DecodeConfig(dataset.decode.timestep, MANY_STEPS, dataset.decode.guidance_scale)
    many = D3HRDataset(dataset.artifact, tmp_path, IPC, classes=[0], device="cpu", decode=decode)
    _time_again(many, threads, "many steps", compiled, benchmark)


def test_materialize_compiled(
    dataset: D3HRDataset, threads: int, tmp_path_factory: pytest.TempPathFactory, benchmark: Any
) -> None:
    """After compiling, which takes half a minute and pays off for large sets."""
    root = tmp_path_factory.mktemp("compiled")
    again = D3HRDataset(dataset.artifact, root, IPC, classes=[0], device="cpu")
    _time_again(again, threads, "materialize", True, benchmark)


def _time_again(dataset: D3HRDataset, threads: int, way: str, compiled: bool, benchmark: Any) -> None:
    """Make the set once, and then again while it is timed."""
    _describe(benchmark, dataset, threads, way + (", torch.compile" if compiled else ""))
    dataset.materialize(progress=False, torch_compile=compiled)

    def forget() -> None:
        shutil.rmtree(dataset.image_folder)

    benchmark.pedantic(lambda: dataset.materialize(progress=False), setup=forget, rounds=3)


def test_matmul(dataset: D3HRDataset, threads: int, benchmark: Any) -> None:
    _describe(benchmark, dataset, threads, "matmul")
    with FlopCounterMode(display=False) as counter:
        _generate(dataset, dataset.sample_latents(0)[:1])
    matrix = torch.rand(1024, 1024)
    repeats = 20
    benchmark.extra_info["gflop_per_image"] = counter.get_total_flops() / 1e9
    benchmark.extra_info["images"] = repeats * 2 * 1024**3 / counter.get_total_flops()
    benchmark.pedantic(lambda: [matrix @ matrix for _ in range(repeats)], rounds=5, warmup_rounds=1)
