"""Students whose images are weighted: by a setting, from the command to the loss, or refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments import student_run
from d3hr_datasets.experiments.evaluated_set import EvaluatedSet
from d3hr_datasets.experiments.evaluation import WEIGHTED, EvaluationSettings, evaluation_table
from d3hr_datasets.experiments.student_inputs import run_folder
from d3hr_datasets.experiments.student_run import run_student
from d3hr_datasets.experiments.train_table import train_all
from d3hr_datasets.image_sets.distilled_sets import open_artifact
from d3hr_datasets.students import training
from tests.cli.test_cli import fail, succeed
from tests.support.modes import save_artifact_of_modes
from tests.support.tiny import tiny_pipeline
from tests.support.tiny_students import student

NAME = "convnet3-random_real-ipc2-seed0-e2df650edbd6"  # as it was before there was the setting
CHANGES: dict[str, Any] = {"student_args": {"width": 4}, "batch_size": 4, "weights": True}


@pytest.fixture(scope="module")
def modes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an artifact of the classes of the real images, with modes and a model."""
    folder = tmp_path_factory.mktemp("modes") / "artifact"
    tiny_pipeline().save_pretrained(folder / "model")
    counts = [[6, 1, 1], [2, 2, 4], [5, 5, 5]]
    return save_artifact_of_modes(folder, counts, classes=("ant", "bee", "cat")).folder


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor | None]:
    """Return a list that gets the weights that each student is trained with."""
    seen: list[torch.Tensor | None] = []
    train = training.train_student

    def spy(*arguments: Any, **options: Any) -> Any:
        seen.append(options["weights"])
        return train(*arguments, **options)

    monkeypatch.setattr(student_run, "train_student", spy)
    return seen


def test_a_student_is_weighted_where_it_is_asked_for(
    real: Path, modes: Path, tmp_path: Path, given: list[torch.Tensor | None]
) -> None:
    plain = student(real, tmp_path, source="default", artifact=str(modes), ipc=4, epochs=1)
    weighted = dataclasses.replace(plain, weights=True)
    for settings in (plain, weighted):
        run_student(settings, progress=False)
    expected = open_artifact(weighted, tmp_path).weights
    assert given[0] is None and given[1] is not None
    assert torch.equal(given[1], expected) and expected[:4].tolist() != [1.0] * 4


def test_a_run_without_weights_has_the_name_that_it_had_before() -> None:
    settings = student(Path("real"), Path("out"))
    assert run_folder(settings, {}).name == NAME
    assert run_folder(dataclasses.replace(settings, weights=True), {}).name != NAME


@pytest.mark.parametrize("source", ["random_real", "whole", "reconstructed", "raw_diffusion", "images:SET"])
def test_images_without_weights_are_refused_before_any_student(
    source: str, real: Path, modes: Path, tmp_path: Path
) -> None:
    ipc = 0 if source == "whole" else 2
    name = source.replace("SET", str(real / "train"))
    settings = student(real, tmp_path, source=name, artifact=str(modes), ipc=ipc, weights=True)
    with pytest.raises(ConfigError, match=r"weights=True .*have no weights; leave it out.*'modes'"):
        run_student(settings, progress=False)
    assert not list(tmp_path.rglob("settings.yaml"))


def test_the_command_takes_weights_and_says_who_has_none(real: Path, modes: Path, tmp_path: Path) -> None:
    command = ["train", "student", "dc", "--dataset", real, "--artifact", modes, "--ipc", 4, "--epochs", 1]
    more = ["--set", "student_args={width: 4}", "--set", "weights=true", "--output", tmp_path / "runs"]
    values = succeed(*command, *more)
    assert values["settings"]["weights"] is True and values["num_images"] == 12
    line = fail(1, *command, *more, "--source", "random_real")
    assert "weights=True" in line and "source 'random_real' have no weights" in line


def test_real_images_of_an_evaluation_are_not_weighted(
    real: Path, modes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = EvaluatedSet("mine", str(real), 2, {"source": "default", "artifact": str(modes)}, {})
    table, rows = evaluation_table(found, EvaluationSettings(whole=True, changes=CHANGES), "out")
    assert [row.student(0).weights for row in rows] == [True, False, False] and WEIGHTED in table.notes
    plain = EvaluationSettings(whole=True, changes={**CHANGES, "weights": False})
    table, rows = evaluation_table(found, plain, "out")
    assert not any(row.student(0).weights for row in rows) and WEIGHTED not in table.notes
    own = dataclasses.replace(found, settings={"source": f"images:{real / 'train'}"})
    rows = evaluation_table(own, EvaluationSettings(changes=CHANGES), "out")[1]
    monkeypatch.setattr(
        "d3hr_datasets.experiments.train_table.ProcessPoolExecutor", None
    )  # nothing is trained
    with pytest.raises(ConfigError, match="have no weights"):
        train_all(rows, 1, 1, progress=False)
