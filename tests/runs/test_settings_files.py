"""Settings are read over their base and checked; those that ship are accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments.protocol_files import PROTOCOLS
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.runs.settings_files import load_settings
from d3hr_datasets.training.settings import DiffusionTraining
from recipes.train.vae import VAESettings
from tests.recipes.tiny_trainings import CONFIGS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", "unknown settings"),
        ("epochs=many", "must be a int"),
        ("epochs=true", "must be a int"),
        ("epochs", "KEY=VALUE"),
    ],
)
def test_settings_are_checked(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(VAESettings, CONFIGS / "vae_fashion_mnist.yaml", [override])


def test_the_shipped_settings_are_accepted() -> None:
    vae = load_settings(VAESettings, CONFIGS / "vae_fashion_mnist.yaml", ["learning_rate=1e-4"])
    assert vae.learning_rate == 1e-4
    assert load_settings(DiffusionTraining, CONFIGS / "dit_fashion_mnist.yaml", []).image_size == 28
    for name in ("long", "longer"):
        path = CONFIGS / f"dit_fashion_mnist_{name}.yaml"
        assert load_settings(DiffusionTraining, path, []).split == "train"
    assert load_settings(DiffusionTraining, CONFIGS / "dit_mnist_digits.yaml", []).start == "scratch"


def test_missing_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text("output: x\n")
    with pytest.raises(ConfigError, match=r"missing settings .*kl_weight"):
        load_settings(VAESettings, tmp_path / "short.yaml", [])


def test_settings_are_read_over_their_base_and_checked(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("epochs: 3\nbatch_size: 2\n")
    values = {"base": "base.yaml", "batch_size": 8, "timestep": None, "guidance_scale": 2}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="missing settings"):
        load_settings(StudentSettings, tmp_path / "config.yaml", [])
    full = PROTOCOLS / "dc" / "fashion-mnist-ipc1.yaml"
    settings = load_settings(StudentSettings, full, ["timestep=200", "guidance_scale=2"])
    assert (settings.timestep, settings.guidance_scale, settings.learning_rate) == (200, 2.0, 0.01)
    sigma = load_settings(StudentSettings, full, ["timestep=0.6", "guidance_scale=2"])  # of a flow model
    assert (sigma.timestep, type(settings.timestep)) == (0.6, int)
    with pytest.raises(ConfigError, match=r"unknown settings \['epoch'\]"):
        load_settings(StudentSettings, full, ["epoch=2"])
    with pytest.raises(ConfigError, match="timestep = 'late' must be a int"):
        load_settings(StudentSettings, full, ["timestep=late"])
