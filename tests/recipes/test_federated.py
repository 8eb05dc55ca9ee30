"""Images dealt out among parties come back as one build of all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from recipes.evaluate import federated
from recipes.tables import model_tables

ROOT = Path(__file__).parents[2]


def test_every_image_is_dealt_once_and_classes_are_skewed() -> None:
    labels = torch.arange(3).repeat(200)
    dealt = federated.deal(labels, 4, 0.1)
    assert sorted(number for part in dealt for number in part) == list(range(600))
    counts = torch.stack([torch.bincount(labels[part], minlength=3) for part in dealt])
    assert int(counts.min()) >= federated.LEAST
    assert float(counts.amax(dim=0).min()) > 100  # of each class one party has more than half
    assert dealt == federated.deal(labels, 4, 0.1)


def test_merged_parties_are_the_pooled_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federated, "MODEL", ROOT / federated.MODEL)
    monkeypatch.chdir(tmp_path)  # where images are unpacked
    output = tmp_path / "federated.json"
    sizes = {"images": 120, "parties": 2, "ipc": 1, "seeds": 1, "epochs": 1, "jobs": 1}
    arguments = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    places = ["--work", str(tmp_path / "work"), "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["federated", *arguments, *places])
    federated.main()
    results = json.loads(output.read_text(encoding="utf-8"))["results"]
    # Sums are exact; batches of other sizes round the last digits of an inverted latent, here of twelve.
    assert all(value < 2e-5 for value in results["merged and pooled"].values())
    assert set(results) == {"merged and pooled", "pooled", "merged", "parties alone"}
    monkeypatch.setattr(model_tables, "read", lambda name: {"federated": results}[name])
    assert "| images of the merged artifact |" in model_tables.federated()
    assert results["parties alone"]["worst"] <= results["parties alone"]["best"]
