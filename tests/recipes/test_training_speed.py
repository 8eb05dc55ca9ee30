"""The benchmark of training: each way changes what it says, and is measured."""

from __future__ import annotations

import ctypes.util
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets.training.config_files import training_settings
from recipes.common.errors import RecipeError
from recipes.evaluate import training_speed


def test_ways_are_settings_and_allocators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, allocator in training_speed.WAYS.values():
        training_settings("fashion-mnist", changes)
        assert allocator in {"glibc", "glibc keeps memory", "jemalloc"}
    assert training_speed.WAYS[training_speed.BASELINE] == ([], "glibc")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.2")
    assert training_speed.environment("jemalloc", tmp_path)["LD_PRELOAD"] == "libjemalloc.so.2"
    assert "LD_PRELOAD" not in training_speed.environment("glibc", tmp_path)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(RecipeError, match="libjemalloc2"):
        training_speed.environment("jemalloc", tmp_path)


def test_a_way_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def smaller(name: str, changes: list[str]) -> Any:
        small = ["num_layers=1", "num_attention_heads=1", "attention_head_dim=16", "batch_size=8"]
        return training_settings(name, [*changes, *small])

    monkeypatch.setattr(training_speed, "training_settings", smaller)
    monkeypatch.setattr(training_speed, "IMAGES", 16)
    assert training_speed.measure("float32", tmp_path, 1, 2) > 0
    assert not (tmp_path / "checkpoint.pt").exists()
