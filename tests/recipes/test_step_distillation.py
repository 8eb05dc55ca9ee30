"""A model whose steps are distilled: one step comes to where the whole walk came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3hr_datasets import Artifact, D3HRDataset, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError
from recipes.build import distilled_steps
from recipes.train.step_distillation import StepDistillation, distil, fewer_steps, sampled
from tests.recipes.tiny_trainings import CONFIGS
from tests.support.curated import save_separate_artifact

DECODE = DecodeConfig(200, num_steps=4, solver="dpm++2m", spacing="quadratic", guidance_scale=3.0)


def _settings(artifact: Artifact, output: Path, **changes: Any) -> StepDistillation:
    values: dict[str, Any] = {
        "output": str(output),
        "source": str(artifact.folder),
        "model": str(artifact.folder / "model"),
        "samples_of_class": 16,
        "steps": 60,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "ema_decay": 0.5,
        "log_every": 10,
    }
    return StepDistillation(**{**values, **changes})


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return save_separate_artifact(tmp_path_factory.mktemp("distil") / "artifact", decode=DECODE)


@pytest.fixture(scope="module")
def distilled(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distil(_settings(artifact, tmp_path_factory.mktemp("distil") / "run"))


def _error(model: LatentDiffusion, dataset: D3HRDataset, num_steps: int) -> float:
    """Return how far fewer steps of a model end from the walk of the artifact, on groups it never saw."""
    found = []
    for label in range(3):
        latents, labels = dataset.sample_latents(label), torch.full((dataset.ipc,), label)
        wanted = dataset.model().denoise(latents, labels, DECODE)
        got = model.denoise(latents, labels, fewer_steps(DECODE, num_steps))
        found.append((got - wanted).square().mean())
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("num_steps", [1, 2])
def test_fewer_steps_come_nearer_than_those_of_the_model_itself(
    artifact: Artifact, distilled: Path, num_steps: int
) -> None:
    dataset = D3HRDataset(artifact, ipc=8, sampling=GroupSamplingConfig("modes", seed=5), device="cpu")
    model = LatentDiffusion.from_pretrained(distilled, device="cpu")
    before, after = (_error(one, dataset, num_steps) for one in (dataset.model(), model))
    assert after < 0.5 * before
    assert model.forward_passes(fewer_steps(DECODE, num_steps)) == num_steps


def test_the_noise_is_what_the_walk_takes_away(artifact: Artifact) -> None:
    dataset = D3HRDataset(artifact, ipc=2, sampling=GroupSamplingConfig("modes", seed=5), device="cpu")
    found = sampled(dataset, DECODE)
    level = dataset.model().schedule.level(DECODE.timestep)
    again = level.signal * found["mean"] + level.noise * found["noise"]
    torch.testing.assert_close(again, torch.cat([dataset.sample_latents(label) for label in range(3)]))
    assert found["labels"].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_run_goes_on_where_it_stopped(artifact: Artifact, distilled: Path, tmp_path: Path) -> None:
    distil(_settings(artifact, tmp_path / "run", steps=25))
    again = distil(_settings(artifact, tmp_path / "run"))
    assert (tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8").count("\n") == 7
    assert LatentDiffusion.from_pretrained(again, device="cpu").num_classes == 3
    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in distilled.iterdir())


def test_images_are_saved_for_each_number_of_steps(
    artifact: Artifact, distilled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["--artifact", artifact.folder, "--model", distilled, "--output", tmp_path / "groups"]
    more = ["--steps", "1", "2", "--ipc", "3", "--seeds", "1"]
    monkeypatch.setattr("sys.argv", ["distilled_steps", *map(str, places), *more])
    distilled_steps.main()
    folders = sorted((tmp_path / "groups").iterdir())
    assert [path.name for path in folders] == ["distilled-1-ipc3-seed0", "distilled-2-ipc3-seed0"]
    files = [sorted(folder.rglob("*.png")) for folder in folders]
    assert [len(found) for found in files] == [9, 9]
    assert Image.open(files[0][0]).tobytes() != Image.open(files[1][0]).tobytes()


def test_nothing_is_not_a_number_of_steps(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_steps must be at least 1, not 0"):
        _settings(artifact, tmp_path, num_steps=0)


def test_the_command_is_of_the_settings_that_ship() -> None:
    assert (CONFIGS / distilled_steps.COMMAND.rpartition("/")[2]).exists()
