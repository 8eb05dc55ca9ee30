"""Groups by optimal transport, and groups whose latents keep apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from d3hr_datasets.artifact.gaussians import ClassModes
from recipes.build import group_variants
from recipes.build.group_variants import apart_noise, repulsion, transport, transport_centres
from tests.support.curated import save_separate_artifact


def _modes(means: list[list[float]], counts: list[int]) -> ClassModes:
    mean = torch.tensor(means)[None, :, :, None, None]
    variance = torch.full((1, *mean.shape[2:]), 0.25)
    return ClassModes(mean=mean, variance=variance, count=torch.tensor([counts]))


def test_masses_are_moved_the_shortest_way() -> None:
    far = _modes([[0.0, 0.0], [10.0, 0.0]], [75, 25])
    found = transport_centres(far, 4)[:, :, 0, 0]
    assert sorted(found[:, 0].tolist()) == pytest.approx([0, 0, 0, 10])
    # Two points of three modes: each has half of the one in the middle.
    line = _modes([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], [1, 1, 1])
    assert sorted(transport_centres(line, 2)[:, 0, 0, 0].tolist()) == pytest.approx([1 / 3, 5 / 3])


def test_groups_have_the_moments_of_the_class() -> None:
    modes = _modes([[0.0, 0.0], [4.0, 0.0]], [50, 50])
    variance = torch.tensor([0.25 + 4.0, 0.25])[:, None, None]
    for draw in (transport, repulsion):
        found = draw(modes, variance, 20, 1, 3)
        assert torch.equal(found, draw(modes, variance, 20, 1, 3)) and found.shape == (20, 2, 1, 1)
        assert not torch.equal(found, draw(modes, variance, 20, 1, 4))
        torch.testing.assert_close(found.mean(dim=0).flatten(), torch.tensor([2.0, 0.0]), atol=1e-5, rtol=0)
        assert found[:, 1].std().item() == pytest.approx(0.5, rel=1e-4)
        assert found[:, 0].std().item() == pytest.approx(variance[0].sqrt().item(), rel=0.2)


def test_noise_keeps_apart() -> None:
    noise = apart_noise((2,), 12, 0, 0)
    plain = torch.randn(1000, 12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = (plain - plain.mean(dim=1, keepdim=True)) / plain.std(dim=1, keepdim=True)

    def nearest(group: torch.Tensor) -> torch.Tensor:
        return (torch.cdist(group, group) + 99 * torch.eye(12)).amin(dim=(-1, -2))

    assert float(nearest(noise)) > float(nearest(plain).quantile(0.95))
    assert apart_noise((2,), 1, 0, 0).shape == (1, 2)


def test_the_recipe_saves_a_folder_for_each_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = save_separate_artifact(tmp_path / "artifact").folder
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path / "cache"))
    places = ["--artifact", str(artifact), "--output", str(tmp_path / "groups")]
    monkeypatch.setattr("sys.argv", ["group_variants", *places, "--ipc", "3", "--seeds", "2"])
    group_variants.main()
    folders = sorted(path.name for path in (tmp_path / "groups").iterdir())
    assert folders == [f"{way}-ipc3-seed{seed}" for way in ("repulsion", "transport") for seed in (0, 1)]
    files = {name: sorted((tmp_path / "groups" / name).rglob("*.png")) for name in folders}
    assert all(len(found) == 3 * 3 for found in files.values())
    pixels = {name: Image.open(found[0]).tobytes() for name, found in files.items()}
    assert len(set(pixels.values())) == 4
