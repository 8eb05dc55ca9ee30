"""Memories of earlier classes cost what they say, and figures of forgetting are what their names say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from d3hr_datasets.experiments.protocol_files import choose_protocol
from d3hr_datasets.students.views import TensorImages
from recipes.evaluate import continual
from recipes.tables import model_tables

ROOT = Path(__file__).parents[2]


def _images(number: int, seed: int = 0) -> list[torch.Tensor]:
    """Return noise with a bright square, at another place for each of ten classes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (10, number, 1, 28, 28), generator=generator).to(torch.uint8)
    for label in range(10):
        row, column = 14 * (label // 5), 5 * (label % 5)
        images[label, ..., row : row + 10, column : column + 5] = 250
    return list(images)


def test_stored_images_stay_within_their_bytes() -> None:
    real = _images(6)
    size = continual.png_bytes(real[0][0])
    memory = continual.stored_images(real, 3.5 * size)
    assert all(1 <= len(members) <= 4 for members in memory.images)
    assert 0 < memory.stored_bytes <= 3.5 * size
    assert [len(members) for members in continual.stored_images(real).images] == [6] * 10
    assert not any(len(members) for members in continual.stored_images(real, size / 2).images)


def test_each_class_is_seen_as_often_however_many_images_it_has() -> None:
    images = {0: torch.full((2, 1, 4, 4), 7), 1: torch.zeros(0, 1, 4, 4), 2: torch.full((9, 1, 4, 4), 9)}
    views = continual.Views(images, 5)
    assert [views[index][1] for index in range(len(views))] == [0] * 5 + [2] * 5
    assert {int(views[index][0].max()) for index in range(5)} == {7}


def test_forgetting_is_what_was_lost_since_the_best_of_earlier_steps() -> None:
    accuracies = [
        torch.tensor([0.9, 0.7]),
        torch.tensor([0.5, 0.5, 1.0, 1.0]),
        torch.tensor([0.6, 0.6, 0.4, 0.2, 1.0, 1.0]),
    ]
    found = continual.summary(accuracies)
    assert found["last"] == pytest.approx(100 * (0.6 + 0.3 + 1.0) / 3)
    assert found["average"] == pytest.approx(100 * (0.8 + 0.75 + (0.6 + 0.3 + 1.0) / 3) / 3)
    assert found["forgetting"] == pytest.approx(100 * ((0.8 - 0.6) + (1.0 - 0.3)) / 2)


def test_a_student_without_a_memory_forgets_and_with_all_images_does_not() -> None:
    changes = {"epochs": 8, "batch_size": 10, "student_args": {"first_padding": 3, "width": 8}}
    protocol = choose_protocol("dc", "fashion-mnist", 10, changes).settings()
    protocol = dataclasses.replace(protocol, learning_rate=0.05)
    real, held_out = _images(10), _images(5, seed=1)
    test = TensorImages(torch.cat(held_out), torch.arange(10).repeat_interleave(5), [])
    empty = continual.Memory([members[:0] for members in real], 0)
    forgetful = continual.run(empty, real, test, protocol, 0, 10)
    reminded = continual.run(continual.stored_images(real), real, test, protocol, 0, 10)
    assert reminded["last"] > forgetful["last"] + 20
    assert reminded["forgetting"] < forgetful["forgetting"]


def test_the_recipe_compares_memories_of_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continual, "MODEL", ROOT / continual.MODEL)
    monkeypatch.chdir(tmp_path)  # where images are unpacked
    asked = []

    def run(memory: continual.Memory, *_: object) -> dict[str, float]:
        asked.append(memory)
        return {"average": 50.0, "last": 40.0, "forgetting": 30.0}

    monkeypatch.setattr(continual, "run", run)
    output = tmp_path / "continual.json"
    places = ["--work", str(tmp_path / "work"), "--output", str(output)]
    numbers = ["--images", "4", "--modes", "2", "--seeds", "2"]
    monkeypatch.setattr("sys.argv", ["continual", *numbers, *places])
    continual.main()
    results = json.loads(output.read_text(encoding="utf-8"))["results"]
    assert len(asked) == 2 * len(results)
    counts = {name: found["images_of_a_class"] for name, found in results.items()}
    assert counts["nothing"] == 0 and counts["one Gaussian"] == counts["all images"] == 4
    sizes = {name: found["bytes_of_a_class"] for name, found in results.items()}
    values = 12 * 8 * 8 * 2  # of a latent, in half precision
    assert 2 * values < sizes["one Gaussian"] < 2 * values + 500  # a mean, a variance, a header
    assert sizes["images of as many bytes as one Gaussian"] <= sizes["one Gaussian"]
    monkeypatch.setattr(model_tables, "read", lambda name: {"continual": results}[name])
    monkeypatch.setattr(model_tables, "read_results", lambda path: json.loads(output.read_text()))
    assert model_tables.continual().count("\n") == len(results) + 3
    assert "The diffusion model takes 10.7 MB, once." in model_tables.continual()
