"""How fast images are inverted: the straightforward loop, and each thing that `build_artifact` does better.

`make bench` prints them side by side, for the embedded model. The loop is written as one would first write
it, and as the reference code is: guidance in both halves of a doubled batch, a DataLoader for every class,
single precision, and statistics of all latents of a class stacked. Each way after it changes one thing more.
The last one makes the few evaluations of the artifact's own inversion. Ways of as many evaluations are those
without guidance, from 2 to 5. Ten images of a class cannot fill the loop's batches; where one class has all
hundred, they are full.
Compiling comes before the time that is measured: it takes half a minute, once in a process. Times are of
a wall clock, so the machine must have nothing else to do.
`python -m recipes.evaluate.benchmarks` writes the images per second.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from d3hr_datasets import Artifact, ArtifactInfo, InversionConfig
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.diffusion.inversion import inversion_passes
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


def _inversion(artifact: Artifact, guidance_scale: float) -> InversionConfig:
    """Return the paper's inversion to the times of the artifact."""
    steps = artifact.info.inversion.num_inference_steps
    return InversionConfig(TIMESTEPS, num_inference_steps=steps, guidance_scale=guidance_scale)


def _loop(model: LatentDiffusion, inversion: InversionConfig, classes: int) -> None:
    """Invert class by class, with all latents of a class in memory."""
    data = Tensors(classes)
    for label in range(classes):
        members: Any = [data[index] for index, target in enumerate(data.targets) if target == label]
        loader: DataLoader[Any] = DataLoader(members, LOOP_BATCH)
        found = [model.invert(model.encode(images), labels, inversion) for images, labels in loader]
        for timestep in TIMESTEPS:
            torch.var_mean(torch.cat([one[timestep] for one in found]), dim=0)


def _build(
    model: LatentDiffusion, artifact: Artifact, inversion: InversionConfig, folder: Path, batch_size: int
) -> None:
    values = artifact.info.to_dict()
    values.update(num_modes=1, source={}, inversion=inversion.to_dict())
    info = ArtifactInfo.from_dict(values)
    build_artifact(
        Images(), model, folder / "artifact", info, folder / "work", batch_size=batch_size, progress=False
    )


@dataclass(frozen=True)
class Way:
    """A way to invert: by the loop where it has no batch size, with guidance or not, by the paper's steps."""

    batch_size: int | None = None
    guidance_scale: float = 1.0
    classes: int = 10
    compiled: bool = False
    few: bool = False

    def inversion(self, artifact: Artifact) -> InversionConfig:
        return artifact.info.inversion if self.few else _inversion(artifact, self.guidance_scale)

    def run(self, model: LatentDiffusion, artifact: Artifact, folder: Path) -> None:
        if self.batch_size is None:
            _loop(model, self.inversion(artifact), self.classes)
        else:
            _build(model, artifact, self.inversion(artifact), folder, self.batch_size)


WAYS = {
    "1 the straightforward loop": Way(guidance_scale=4.0),
    "2 without guidance": Way(),
    "3 build_artifact, batches of 10": Way(10),
    "4 build_artifact, batches of 100": Way(100),
    "5 torch.compile": Way(100, compiled=True),
    "6 few evaluations": Way(100, compiled=True, few=True),
    "the straightforward loop, one class": Way(guidance_scale=4.0, classes=1),
    "the same without guidance": Way(classes=1),
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
    passes = inversion_passes(model.denoiser, WAYS[way].inversion(artifact))
    benchmark.extra_info.update(way=way, baseline=next(iter(WAYS)), images=NUM_IMAGES, passes=passes)
    if WAYS[way].compiled:
        model = copy.deepcopy(model)
        model.compile()
    folders = (tmp_path / str(number) for number in range(6))  # a build goes on from finished chunks
    benchmark.pedantic(
        WAYS[way].run, setup=lambda: ((model, artifact, next(folders)), {}), rounds=5, warmup_rounds=1
    )
