"""Artifacts to merge and to forget from: real builds of tiny images, and statistics of given latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from d3hr_datasets import Artifact, ModelReference, Prompts
from d3hr_datasets.artifact.d3hr_json import MOMENTS, STATISTICS
from d3hr_datasets.build import KeptSums
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.build.exact_moments import ExactMoments, latent_sums
from tests.support.tiny import CLASSES, IMAGE_SIZE, TIMESTEPS, tiny_info, tiny_model, tiny_pipeline

HUB = ModelReference("org/model", "0" * 40)
SHAPE = (3, 4, 4)
FILES = (STATISTICS, MOMENTS)


class Pictures:
    """Grey images of noise around a brightness of their class; a number is an image, whoever has it."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)
        self.targets = [number % 3 for number in self.numbers]
        self.identity = str(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return picture(self.numbers[index]), self.targets[index]


def picture(number: int) -> Image.Image:
    """Return the image of a number."""
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 80, (IMAGE_SIZE, IMAGE_SIZE), generator=generator) + 60 * (number % 3)
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def save_pictures(folder: Path, numbers: Sequence[int]) -> Path:
    """Save images into a folder with one folder per class."""
    for number in numbers:
        place = folder / CLASSES[number % 3].replace("/", "_")
        place.mkdir(parents=True, exist_ok=True)
        picture(number).save(place / f"{number:04d}.png")
    return folder


def build(folder: Path, numbers: Sequence[int], *, sums: KeptSums | None = None, **options: Any) -> Artifact:
    """Build an artifact of some pictures, with its model inside."""
    info = tiny_info(**options.pop("info", {}))
    if info.model.path is not None:
        tiny_pipeline().save_pretrained(folder / "model")
    options = {"batch_size": 1, "chunk_size": 7, "progress": False, **options}
    return build_artifact(
        options.pop("images", None) or Pictures(numbers),
        tiny_model(),
        folder,
        info,
        folder.with_name(f"{folder.name}.chunks"),
        sums=sums,
        **options,
    )


def latents(number: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Return latents (N, 3, 4, 4) of no images."""
    return scale * torch.randn(number, *SHAPE, generator=torch.Generator().manual_seed(seed))


def artifact_of(
    folder: Path, values: torch.Tensor, rows: torch.Tensor, *, keep: bool = True, **info: Any
) -> Artifact:
    """Save the statistics of latents (N, 3, 4, 4) in rows (N,), label x modes + mode."""
    described = tiny_info(**{"model": HUB, "source": {"fingerprint": f"{hash(folder) % 2**64:064x}"}, **info})
    moments: dict[float, ExactMoments] = {}
    for place, time in enumerate(TIMESTEPS):
        moments[time] = ExactMoments(len(described.classes) * described.num_modes, SHAPE)
        moments[time].update(values + place, rows)
    sums = latent_sums(moments, described.num_modes)
    changes = {**info, "counts": tuple(sums.count.sum(dim=1).tolist())}
    described = tiny_info(**{"model": HUB, "source": described.source, **changes})
    return Artifact.save(folder, described, *sums.statistics(), sums if keep else None)


def file_bytes(artifact: Artifact, *names: str) -> list[bytes]:
    return [(artifact.folder / name).read_bytes() for name in names or FILES]


def quiet(sentence: str) -> None:
    """Say nothing."""


def of_prompts(*names: str) -> dict[str, Any]:
    return {
        "classes": names,
        "prompts": Prompts(tuple(f"a photo of a {name}" for name in names)),
        "counts": (2,) * len(names),
    }


def clumps(tmp_path: Path, **options: Any) -> tuple[Artifact, list[Artifact]]:
    """Return the whole and three parts of latents in four clumps a class, each part with three modes."""
    values, place = latents(360, scale=0.1), torch.arange(360)
    clump = place // 3 % 4
    values[:, 0, 0, 0] += 4 * clump
    parts = []
    for part in range(3):
        has = (clump != part) & (place // 12 % 3 == part)
        modes = torch.tensor([sorted({0, 1, 2, 3} - {part}).index(k) for k in clump[has].tolist()])
        rows = (place % 3)[has] * 3 + modes
        parts.append(artifact_of(tmp_path / f"p{part}", values[has], rows, num_modes=3, **options))
    chosen = torch.cat([(place[(clump != part) & (place // 12 % 3 == part)]) for part in range(3)])
    whole = artifact_of(
        tmp_path / "whole", values[chosen], chosen % 3 * 4 + clump[chosen], num_modes=4, **options
    )
    return whole, parts
