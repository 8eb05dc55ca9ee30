"""The settings files of students are the published protocols."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3hr_datasets.experiments.protocol_files import PROTOCOLS
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.runs.settings_files import load_settings


def configs() -> list[Path]:
    return sorted(path for path in PROTOCOLS.rglob("*.yaml") if path.name != "base.yaml")


@pytest.mark.parametrize("path", configs(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_configs_are_the_published_protocols(path: Path) -> None:
    settings, name = load_settings(StudentSettings, path, []), path.parent.name
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    dataset, _, ipc = path.stem.partition("-ipc")
    command = f"d3hr train student {name} --dataset {dataset}" + (f" --ipc {ipc}" if ipc else "")
    assert any(command in line for line in header)
    text = " ".join(line.removeprefix("#").strip() for line in header)
    assert "Expected time:" in text and "Expected accuracy, %:" in text
    if name == "teacher":
        assert settings.source == "whole" and settings.export
        return
    assert path.stem == f"{path.stem.rpartition('-ipc')[0]}-ipc{settings.ipc}"
    if name == "soft":  # this project's own
        assert settings.labels == "soft" and settings.learning_rate_factor(settings.epochs - 1) < 0.05
        assert (settings.batch_size, settings.crop_scale) == (10, [])
        return
    classes = {"cifar100": 100, "imagenet": 1000, "tiny-imagenet": 200}.get(path.stem.rpartition("-")[0], 10)
    soft = (settings.labels, settings.temperature, settings.schedule, settings.cutmix, settings.decayed)
    batches = None
    if name in {"rded", "d3hr"}:
        assert soft == ("soft", 20, "half_cosine", 1, "matrices") and settings.teacher
        assert (settings.optimizer, settings.learning_rate, settings.weight_decay) == ("adamw", 1e-3, 0.01)
        if "fashion" not in path.stem:
            assert (settings.resize or settings.image_size) == settings.image_size // 7 * 8
    if name == "rded":
        batches = {1: 10, 10: 50, 50: 100}[settings.ipc] * (2 if classes in {100, 1000} else 1)
        assert settings.epochs == 300
        assert settings.crop_scale == ([0.5, 1] if classes == 1000 else [1, 1])
    elif name == "d3hr":
        batches = {1: 15, 10: 50, 50: 100, 100: 100}[settings.ipc] * (2 if classes == 100 else 1)
        woof = {10: 2000, 50: 1500, 100: 1000}[settings.ipc] if "imagewoof" in path.stem else None
        small = "cifar" in path.stem or "fashion" in path.stem
        assert settings.epochs == (woof or (400 if small else 300))
        assert settings.crop_scale == [0.08, 1]
    elif name in {"minimax", "igd"}:
        batches = 64
        assert settings.epochs == {10: 2000, 50: 1500, 100: 1000}[settings.ipc]
        assert (settings.labels, settings.student, settings.crop_scale) == ("hard", "resnetap10", [0.5, 1])
        assert settings.learning_rate_factor(settings.epochs - 1) == pytest.approx(0.2**2)
        assert settings.optimizer == ("sgd" if name == "minimax" else "adamw")
    elif name in {"dc", "dsa"}:
        batches = 256
        assert (settings.epochs, settings.dsa) == ((300, False) if name == "dc" else (1000, True))
        assert (settings.optimizer, settings.learning_rate, settings.weight_decay) == ("sgd", 0.01, 5e-4)
    assert settings.batch_size == batches
