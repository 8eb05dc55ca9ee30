"""Guidance by a weaker model instead of the null class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3hr_datasets import D3HRDataset
from recipes.build import weaker_guidance
from recipes.build.weaker_guidance import WeakerGuidance, guided_by
from recipes.common.errors import RecipeError
from tests.support.curated import save_separate_artifact
from tests.support.tiny import tiny_model, tiny_pipeline


def _worsen(network: torch.nn.Module) -> None:
    for parameter in network.parameters():
        parameter.data.mul_(0.5)


def test_it_guides_away_from_the_weaker_model() -> None:
    strong, weaker = tiny_model().denoiser, tiny_model().denoiser
    _worsen(weaker.network)
    latents, labels = (
        torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 2]),
    )
    guided = WeakerGuidance(strong, weaker)
    one, other = (part(latents, 300, labels, 1.0) for part in (strong, weaker))
    assert not torch.allclose(one, other)
    assert torch.equal(guided(latents, 300, labels, 1.0), one)
    torch.testing.assert_close(guided(latents, 300, labels, 3.0), other + 3 * (one - other))


def test_a_model_of_other_classes_is_refused(tmp_path: Path) -> None:
    artifact = save_separate_artifact(tmp_path / "artifact")
    tiny_pipeline(num_classes=5).save_pretrained(tmp_path / "other")
    with pytest.raises(RecipeError, match=r"num_classes 5, and the artifact's model 3; give an earlier"):
        guided_by(tmp_path / "other", D3HRDataset(artifact, ipc=1))


def test_the_recipe_saves_a_folder_for_each_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = save_separate_artifact(tmp_path / "artifact").folder
    weaker = tiny_pipeline()
    _worsen(weaker.transformer)
    weaker.save_pretrained(tmp_path / "weaker")
    places: list[Any] = [
        "--artifact",
        artifact,
        "--weaker",
        tmp_path / "weaker",
        "--output",
        tmp_path / "groups",
    ]
    more = ["--scales", "1", "5", "--ipc", "3", "--seeds", "1"]
    monkeypatch.setattr("sys.argv", ["weaker_guidance", *map(str, places), *more])
    weaker_guidance.main()
    folders = sorted(path for path in (tmp_path / "groups").iterdir())
    assert [path.name for path in folders] == ["weaker-1-ipc3-seed0", "weaker-5-ipc3-seed0"]
    files = [sorted(folder.rglob("*.png")) for folder in folders]
    assert [len(found) for found in files] == [9, 9]
    assert Image.open(files[0][0]).tobytes() != Image.open(files[1][0]).tobytes()
