"""Images that are chosen by what a student of the earlier ones gets wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.experiments.protocol_files import choose_protocol
from recipes.build import student_errors
from recipes.build.student_errors import order_by_errors

CLASSES, NUMBER = 3, 12
FEW = {"epochs": 1, "student_args": {"width": 8, "first_padding": 3}}


def _candidates() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat_interleave(NUMBER)
    pixels = torch.randint(0, 256, (len(labels), 1, 28, 28), dtype=torch.uint8, generator=generator)
    return torch.randn(len(labels), 4, generator=generator), pixels, labels


def test_later_images_are_those_that_the_student_errs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    features, pixels, labels = _candidates()
    wrong = torch.zeros(len(labels))
    wrong[[5, 17, 29]] = 1e9  # one of each class
    seen: list[list[int]] = []

    def errors(*given: object) -> torch.Tensor:
        seen.append(given[2].tolist())  # type: ignore[attr-defined]
        return wrong + 1e-6

    monkeypatch.setattr(student_errors, "SIZES", (2, 3))
    monkeypatch.setattr(student_errors, "errors_of_a_student", errors)
    protocol = choose_protocol("dc", "fashion-mnist", 10, FEW).settings()
    order = order_by_errors(features, pixels, labels, protocol, 0)
    assert order.shape == (CLASSES, 3)
    assert len({*order.flatten().tolist()}) == 9 and torch.equal(
        labels[order], torch.arange(3)[:, None].expand(3, 3)
    )
    assert seen == [order[:, :2].flatten().tolist()]
    assert {5, 17, 29} <= {*order.flatten().tolist()}


def test_the_student_is_one_of_the_chosen_images() -> None:
    _, pixels, labels = _candidates()
    protocol = choose_protocol("dc", "fashion-mnist", 10, {**FEW, "epochs": 40, "dsa": False}).settings()
    chosen = torch.arange(0, len(labels), 2)
    losses = student_errors.errors_of_a_student(pixels, labels, chosen, protocol, 0)
    others = torch.arange(1, len(labels), 2)
    assert losses.shape == labels.shape and losses.min() > 0
    assert losses[chosen].mean() < 0.5 * losses[others].mean()  # noise cannot be told but by heart


def test_the_recipe_saves_a_folder_for_each_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student_errors, "SIZES", (1, 2))
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path / "cache"))
    more = ["--candidates", "4", "--epochs", "1", "--width", "8", "--ipc", "2", "--seeds", "1"]
    output = ["--artifact", str(embedded_artifact("fashion-mnist")), "--output", str(tmp_path / "groups")]
    monkeypatch.setattr("sys.argv", ["student_errors", *output, *more])
    student_errors.main()
    assert len([*(tmp_path / "groups" / "errors-ipc2-seed0").rglob("*.png")]) == 20
