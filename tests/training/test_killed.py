"""A training that is killed at any moment comes to the same weights, and leaves nothing half."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from d3hr_datasets.training.diffusion import train_diffusion
from tests.training.killed_training import STEPS
from tests.training.tiny_training import metrics, tiny_settings, weights_of, write_inputs

KILLS = 10
ROOT = Path(__file__).parents[2]


def test_ten_kills_change_no_bit(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    command = [
        sys.executable,
        "-m",
        "tests.training.killed_training",
        str(tmp_path),
        str(tmp_path / "killed"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, str(KILLS)], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == KILLS
    settings = tiny_settings(tmp_path, tmp_path / "whole", epochs=None, steps=STEPS, samples_per_class=0)
    folder = train_diffusion(settings)
    expected, found = weights_of(folder), weights_of(tmp_path / "killed" / "model")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    checkpoints = [
        torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("killed", "whole")
    ]
    for key in ("transformer", "average"):
        for name, tensor in checkpoints[1][key].items():
            assert torch.equal(checkpoints[0][key][name], tensor)
    # Rows that a later attempt made again stand there once; a step's error is of that step alone.
    assert metrics(tmp_path / "killed", "step") == list(range(1, STEPS + 1))
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.tmp"))
