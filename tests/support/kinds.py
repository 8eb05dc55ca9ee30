"""Models of all kinds, each made once in a run of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.support.tiny_kinds import PIPELINES, PROMPTS, save_kind


class Kinds:
    """Models of all kinds: in memory as diffusers' pipelines, in folders, and loaded by this library.

    Args:
        folder: Where they are saved.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipelines: dict[str, Any] = {}
        self._models: dict[tuple[str, str | None], LatentDiffusion] = {}

    def pipeline(self, name: str) -> Any:
        if name not in self._pipelines:
            self._pipelines[name] = PIPELINES[name]()
        return self._pipelines[name]

    def folder(self, name: str) -> Path:
        folder = self._folder / name
        return folder if folder.is_dir() else save_kind(name, folder)

    def model(self, name: str, negative_prompt: str | None = None) -> LatentDiffusion:
        key = name, negative_prompt
        if key not in self._models:
            self._models[key] = LatentDiffusion.from_pretrained(
                self.folder(name),
                device="cpu",
                prompts=None if name.startswith("dit") else PROMPTS,
                negative_prompt=negative_prompt,
            )
        return self._models[key]
