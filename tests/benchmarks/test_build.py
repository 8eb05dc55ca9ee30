"""How fast images are inverted: the straightforward loop, and each thing that `build_artifact` does better.

`make bench` prints them side by side, for the embedded model. The loop is written as one would first write
it, and as the reference code is: guidance in both halves of a doubled batch, a DataLoader for every class,
single precision, and statistics of all latents of a class stacked. Each way after it changes one thing more.
Ten images of a class cannot fill the loop's batches; where one class has all hundred, they are full.
Compiling comes before the time that is measured: it takes half a minute, once in a process. Times are of
a wall clock, so the machine must have nothing else to do.
`python -m recipes.evaluate.benchmarks` writes the images per second.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from d3hr_datasets import Artifact, ArtifactInfo, InversionConfig
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.sources.resizing import resize_and_crop

NUM_IMAGES, LOOP_BATCH = 100, 200  # ten of each class; the reference's batch holds all of them
TIMESTEPS = (200, 400)


class Images:
    """Smooth noise as 28 x 28 grey images, sorted by class; what they show does not change the time."""

    def __init__(self, classes: int = 10) -> None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(NUM_IMAGES, 1, 7, 7, generator=generator)
        pixels = torch.nn.functional.interpolate(coarse, size=28, mode="bilinear").mul(255).byte()
        self.images = [Image.fromarray(one[0].numpy()) for one in pixels]
        self.targets = [index * classes // NUM_IMAGES for index in range(NUM_IMAGES)]

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[index], self.targets[index]


class Tensors(Images):
    """The same as tensors, for a DataLoader."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return to_model_range(resize_and_crop(image, 28, "L"), 2), label


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Artifact.load(embedded_artifact("fashion-mnist"))


@pytest.fixture(scope="module")
def model(artifact: Artifact) -> LatentDiffusion:
    folder = artifact.model_folder()
    assert folder is not None
    return LatentDiffusion.from_pretrained(folder, device="cpu")


def _inversion(artifact: Artifact, timesteps: tuple[int, ...], guidance_scale: float) -> InversionConfig:
    steps = artifact.info.inversion.num_inference_steps
    return InversionConfig(timesteps, num_inference_steps=steps, guidance_scale=guidance_scale)


def _loop(model: LatentDiffusion, artifact: Artifact, guidance_scale: float, classes: int = 10) -> None:
    """Invert class by class, with all latents of a class in memory."""
    data, inversion = Tensors(classes), _inversion(artifact, TIMESTEPS, guidance_scale)
    for label in range(classes):
        members: Any = [data[index] for index, target in enumerate(data.targets) if target == label]
        loader: DataLoader[Any] = DataLoader(members, LOOP_BATCH)
        found = [model.invert(model.encode(images), labels, inversion) for images, labels in loader]
        for timestep in TIMESTEPS:
            torch.var_mean(torch.cat([one[timestep] for one in found]), dim=0)


def _build(model: LatentDiffusion, artifact: Artifact, folder: Path, batch_size: int) -> None:
    values = artifact.info.to_dict()
    values.update(num_modes=1, source={}, inversion=_inversion(artifact, TIMESTEPS, 1.0).to_dict())
    info = ArtifactInfo.from_dict(values)
    build_artifact(
        Images(), model, folder / "artifact", info, folder / "work", batch_size=batch_size, progress=False
    )


WAYS: dict[str, Any] = {
    "1 the straightforward loop": lambda model, artifact, folder: _loop(model, artifact, 4.0),
    "2 without guidance": lambda model, artifact, folder: _loop(model, artifact, 1.0),
    "3 build_artifact, batches of 10": lambda model, artifact, folder: _build(model, artifact, folder, 10),
    "4 build_artifact, batches of 100": lambda model, artifact, folder: _build(model, artifact, folder, 100),
    "5 torch.compile": lambda model, artifact, folder: _build(model, artifact, folder, 100),
    "the straightforward loop, one class": lambda model, artifact, folder: _loop(model, artifact, 4.0, 1),
}


@pytest.fixture(params=sorted({1, os.cpu_count() or 1}))
def threads(request: pytest.FixtureRequest) -> Any:
    """Run with one thread, then with one for every core."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("way", WAYS)
def test_images_inverted(
    way: str, threads: int, model: LatentDiffusion, artifact: Artifact, tmp_path: Path, benchmark: Any
) -> None:
    benchmark.group = f"{NUM_IMAGES} images inverted, {threads} threads"
    benchmark.extra_info.update(way=way, baseline=next(iter(WAYS)), images=NUM_IMAGES)
    if way.endswith("compile"):
        model = copy.deepcopy(model)
        model.compile()
    folders = (tmp_path / str(number) for number in range(6))  # a build goes on from finished chunks
    benchmark.pedantic(
        WAYS[way], setup=lambda: ((model, artifact, next(folders)), {}), rounds=5, warmup_rounds=1
    )
