"""A batch in parts, one after another or in several processes, means what it means at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from d3hr_datasets.training.diffusion import train_diffusion
from d3hr_datasets.training.objective import DiffusionObjective
from tests.training.tiny_training import metrics, save_base, tiny_settings, weights_of, write_inputs

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("start", ["scratch", "lora"])
def test_accumulated_gradients_are_those_of_the_batch(start: str, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    changes = {} if start == "scratch" else {"start": start, "model": str(save_base(tmp_path / "base"))}
    for number in (1, 4):
        settings = tiny_settings(
            tmp_path, tmp_path / f"run{number}", gradient_accumulation=number, samples_per_class=0, **changes
        )
        train_diffusion(settings)
    for column in ("mse", "gradient_norm"):
        whole, parts = (metrics(tmp_path / f"run{number}", column) for number in (1, 4))
        assert parts == pytest.approx(whole, rel=2e-4)


def test_activations_may_be_computed_twice(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    found = [
        weights_of(
            train_diffusion(tiny_settings(tmp_path, tmp_path / f"{twice}", gradient_checkpointing=twice))
        )
        for twice in (False, True)
    ]
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_bfloat16_is_used_in_the_network_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs(tmp_path)
    seen: set[torch.dtype] = set()
    errors = DiffusionObjective.errors

    def note(self: DiffusionObjective, *arguments: torch.Tensor) -> torch.Tensor:
        found = errors(self, *arguments)  # type: ignore[arg-type]
        seen.add(found.dtype)
        return found

    monkeypatch.setattr(DiffusionObjective, "errors", note)
    train_diffusion(tiny_settings(tmp_path, tmp_path / "half", mixed_precision="bf16", samples_per_class=0))
    assert seen == {torch.float32}
    train_diffusion(tiny_settings(tmp_path, tmp_path / "full", samples_per_class=0))
    half, full = metrics(tmp_path / "half"), metrics(tmp_path / "full")
    assert half != full and half == pytest.approx(full, rel=0.02)


def test_two_processes_make_the_losses_of_one(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    settings = tiny_settings(tmp_path, tmp_path / "one", samples_per_class=0)
    train_diffusion(settings)
    values = {**vars(settings), "output": str(tmp_path / "two")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = ["--master-port", str(port), "-m", "d3hr_datasets.cli", "train", "diffusion"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [*launcher, *command, str(tmp_path / "config.yaml")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / "two" / "model")
    assert metrics(tmp_path / "two") == pytest.approx(metrics(tmp_path / "one"), abs=1e-5)
    assert metrics(tmp_path / "two", "step") == list(range(1, 13))
    one, two = (weights_of(tmp_path / run / "model") for run in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-3)
