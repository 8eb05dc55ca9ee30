"""Builds from the tiny images, for the tests: what they read, and what comes out."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file

from d3hr_datasets import Artifact
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.support.tampering import STATISTICS
from tests.support.tiny import TinyImages, tiny_info


class CountingImages(TinyImages):
    """The tiny images; notes which are read, and is killed when the image `fatal` is."""

    def __init__(self, fatal: int | None = None) -> None:
        self.fatal = fatal
        self.read: list[int] = []
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with self._lock:
            self.read.append(index)
        if index == self.fatal:
            raise KeyboardInterrupt("killed")
        return super().__getitem__(index)


class Relabelled(TinyImages):
    """The tiny images with other labels."""

    def __init__(self, labels: list[Any]) -> None:
        self.labels = labels

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return super().__getitem__(index)[0], self.labels[index]


def build_tiny(
    model: LatentDiffusion,
    folder: Path,
    source: Any = None,
    info: Any = None,
    work: Path | None = None,
    **options: Any,
) -> Artifact:
    """Build in chunks of four images, in float32."""
    source = TinyImages() if source is None else source
    info = dataclasses.replace(info or tiny_info(), dtype="float32")
    options = {"batch_size": 3, "chunk_size": 4, "progress": False, **options}
    return build_artifact(source, model, folder, info, work or folder.parent / "work", **options)


def statistics_of(artifact: Artifact) -> dict[str, torch.Tensor]:
    return dict(load_file(artifact.folder / STATISTICS))


def assert_close(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float = 1e-5
) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol)
