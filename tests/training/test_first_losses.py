"""The numbers of the training that made the embedded model, and of one under any settings of the caller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets.training.diffusion import train_diffusion
from tests.training.data import make_first_losses
from tests.training.tiny_training import metrics, tiny_settings, weights_of, write_inputs


def test_the_first_losses_are_those_of_the_code_that_made_the_embedded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = json.loads(Path(make_first_losses.__file__).with_name("first_losses.json").read_text())
    write_inputs(tmp_path)
    losses: list[float] = []
    backward: Any = torch.Tensor.backward

    def note(tensor: torch.Tensor) -> None:
        losses.append(tensor.item())
        backward(tensor)

    monkeypatch.setattr(torch.Tensor, "backward", note)
    train_diffusion(tiny_settings(tmp_path, tmp_path / "run", **make_first_losses.SETTINGS))
    assert losses[:50] == pytest.approx(expected["losses"], abs=1e-4)
    assert metrics(tmp_path / "run")[:50] == pytest.approx(expected["mse"], abs=1e-4)
    assert max(losses) - min(losses) > 0.1


def test_weights_are_the_same_under_any_settings_of_the_caller(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    plain = weights_of(train_diffusion(tiny_settings(tmp_path, tmp_path / "plain")))
    random = torch.default_generator.get_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"), torch.inference_mode():
            folder = train_diffusion(tiny_settings(tmp_path, tmp_path / "other"))
            assert torch.is_autocast_enabled("cpu") and torch.is_inference_mode_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.default_generator.get_state(), random)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in weights_of(folder).items())
