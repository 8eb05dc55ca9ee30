"""The script that measures the search for modes, on few latents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recipes.evaluate import modes


def test_modes_are_sought_in_a_process_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, labels = (
        torch.randn(40, 1, 3, 3, generator=torch.Generator().manual_seed(0)),
        torch.arange(40) % 2,
    )
    save_file({"latents": latents, "labels": labels}, tmp_path / "latents.safetensors")
    output = tmp_path / "modes.json"
    words = ["--work", str(tmp_path), "--output", str(output), "--modes", "3"]
    monkeypatch.setattr("sys.argv", ["modes", "--images", "100", *words])
    modes.main()
    results = json.loads(output.read_text())["results"]
    assert set(results) == {"100 images, their number known", "100 images, their number unknown"}
    for values in results.values():
        assert values["images"] == 100 and 0 < values["before_mib"] <= values["peak_mib"]
        assert values["objective_ratio"] == pytest.approx(1, abs=0.1)  # all are looked at, in another order
        assert values["largest_of_a_class"] >= values["objective_ratio"]
