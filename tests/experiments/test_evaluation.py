"""A set of images is evaluated: students trained on it beside students of random real images."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments import train_table
from d3hr_datasets.experiments.evaluated_set import artifact_to_evaluate, images_to_evaluate, is_artifact
from d3hr_datasets.experiments.evaluation import FRESH, EvaluationSettings, evaluate_set, evaluation_table
from d3hr_datasets.experiments.student_run import run_student
from tests.cli.test_cli import fail
from tests.support.curated import add_order, save_separate_artifact
from tests.support.pools import PoolHere
from tests.support.tiny import save_untrained_artifact

TINY: dict[str, Any] = {"student_args": {"width": 4, "first_padding": 1}, "batch_size": 4}


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_table, "ProcessPoolExecutor", PoolHere)


def test_an_artifact_of_the_hub_is_evaluated_at_one_commit(
    tiny_artifact: Path, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, repository = "0123456789" * 4, tmp_path / "hub" / "datasets--org--tiny"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (repository / "snapshots").mkdir(parents=True)
    shutil.copytree(tiny_artifact, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = artifact_to_evaluate("org/tiny", str(real), 2)
    assert found.settings["artifact"] == f"org/tiny@{commit}"
    assert artifact_to_evaluate(str(tiny_artifact), str(real), 2).settings["artifact"] == str(tiny_artifact)


@pytest.mark.usefixtures("_here")
def test_a_folder_is_set_beside_random_real_images_and_all_of_them(
    real: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(real / "val", tmp_path / "images")
    changes = {
        **TINY,
        "epochs": 2,
        "teacher": f"local-dir:{teacher}",
        "output": str(tmp_path / "out" / "students"),
    }
    found = images_to_evaluate(str(tmp_path / "images"), "soft", str(real), changes)
    sizes = sum(path.stat().st_size for path in (tmp_path / "images").rglob("*.png"))
    assert (found.ipc, found.name, found.num_bytes) == (2, "images", {"files": sizes})
    how = EvaluationSettings(
        protocol="soft", labels=("hard", "soft"), seeds=2, whole=True, plain=True, changes=changes
    )
    output = tmp_path / "out"
    document = evaluate_set(found, how, str(output), "d3hr evaluate images", jobs=1, progress=False)
    names = [row["name"] for row in document["rows"]]
    assert names == [
        f"{what}, convnet3, {kind} labels{plain}"
        for kind in ("hard", "soft")
        for plain in ("", ", plain images")
        for what in ("images", "random real")
    ] + ["whole real set, convnet3, hard labels, epochs 1"]
    images, random_real, plain = document["rows"][0], document["rows"][1], document["rows"][2]
    assert images["settings"]["source"] == f"images:{tmp_path / 'images'}"
    assert random_real["settings"]["source"] == "random_real" and random_real["num_images"] == 6
    assert images["settings"]["flip"] and not plain["settings"]["flip"] and plain["settings"]["cutmix"] == 0
    assert [(row["num_images"], len(row["top1"]["values"])) for row in document["rows"]][-1] == (12, 2)
    assert {score["kind"] for score in document["scores"]} == {"lrs", "ars"} and len(document["scores"]) == 3
    lrs = next(score for score in document["scores"] if score["kind"] == "lrs")
    assert lrs["real_hard"] == pytest.approx(document["rows"][-1]["top1"]["mean"] / 100)
    assert lrs["distilled_hard"] == pytest.approx(images["top1"]["mean"] / 100)
    files = sorted(path.name for path in output.iterdir())
    assert files == ["evaluation.json", "evaluation.md", "evaluation.png", "students"]
    assert json.loads((output / "evaluation.json").read_text()) == document
    text = (output / "evaluation.md").read_text()
    assert "| images, convnet3, hard labels |" in text and "settings of fashion-mnist" in text

    monkeypatch.setattr(train_table, "run_student", _trained_before(run_student))
    again = evaluate_set(found, how, str(output), "d3hr evaluate images", jobs=1, progress=False)
    assert again == document


def _trained_before(run_student: Any) -> Any:
    """Return `run_student`, which fails where a student is not trained yet."""

    def run(settings: Any, **options: Any) -> Any:
        return run_student(settings, accelerator=object(), **options)

    return run


def test_artifacts_are_told_from_images(tiny_artifact: Path, real: Path, tmp_path: Path) -> None:
    assert is_artifact("fashion-mnist") and is_artifact(str(tiny_artifact)) and is_artifact("org/name@main")
    for images in (str(real), "hfds/org/name", "images.pt", "torchvision:MNIST", "datasets:org/name"):
        assert not is_artifact(images)
    with pytest.raises(ConfigError, match="say with --real"):
        artifact_to_evaluate(str(tiny_artifact), None, 2)
    found = artifact_to_evaluate(str(tiny_artifact), str(real), 2)
    assert (found.dataset, found.settings) == (
        str(real),
        {"source": "default", "artifact": str(tiny_artifact)},
    )
    assert 0 < found.num_bytes["diffusion model in it"] < found.num_bytes["artifact"]


def test_an_evaluation_says_what_its_scores_lack(real: Path, tiny_artifact: Path) -> None:
    found = artifact_to_evaluate(str(tiny_artifact), str(real), 2)
    how = EvaluationSettings(labels=("hard", "soft"), changes=TINY, students=("convnet3", "resnet10t"))
    table, rows = evaluation_table(found, how, "out")
    assert [row.name for row in rows[4:6]] == [
        f"{found.name}, resnet10t, hard labels",
        "random real, resnet10t, hard labels",
    ]
    assert rows[4].student(1).student_args == rows[0].student(1).student_args == TINY["student_args"]
    plain = dataclasses.replace(how, changes={"batch_size": 4})
    assert evaluation_table(found, plain, "out")[1][4].student(1).student_args == {}
    assert any("LRS needs" in note for note in table.notes) and table.scores == []
    twice = EvaluationSettings(labels=("hard", "hard"), changes=TINY)
    assert len(evaluation_table(found, twice, "out")[1]) == 2
    misnamed = dataclasses.replace(found, name="random real")
    names = [row.name for row in evaluation_table(misnamed, twice, "out")[1]]
    assert names == ["set 'random real', convnet3, hard labels", "random real, convnet3, hard labels"]
    with pytest.raises(ConfigError, match="augments no images"):
        evaluation_table(found, EvaluationSettings(plain=True, changes=TINY), "out")


def test_the_whole_set_is_seen_as_often(real: Path, tiny_artifact: Path) -> None:
    found = artifact_to_evaluate(str(tiny_artifact), str(real), 2)
    how = EvaluationSettings(whole=True, changes={**TINY, "epochs": 20})
    rows = evaluation_table(found, how, "out")[1]
    assert rows[-1].student(0).epochs == 10  # twelve images instead of six
    how = EvaluationSettings(whole=True, whole_epochs=3, changes=TINY)
    assert evaluation_table(found, how, "out")[1][-1].student(0).epochs == 3


def test_an_artifact_is_evaluated_by_the_images_that_are_asked_for(real: Path, tmp_path: Path) -> None:
    folder = save_separate_artifact(tmp_path / "artifact").folder
    with pytest.raises(ConfigError, match="stores no order of curated images"):
        artifact_to_evaluate(str(folder), str(real), 2, "curated")
    add_order(folder)
    with pytest.raises(ConfigError, match="ipc must be at most 12"):
        artifact_to_evaluate(str(folder), str(real), 13, "curated")
    with pytest.raises(ConfigError, match=r"source = 'herding' is no way to make images .*'curated'"):
        artifact_to_evaluate(str(folder), str(real), 2, "herding")
    found = artifact_to_evaluate(str(folder), str(real), 2, "curated")
    assert found.name == "distilled (tiny, curated)"
    rows = evaluation_table(found, EvaluationSettings(changes=TINY), "out")[1]
    assert [row.student(1).source for row in rows] == ["curated", "random_real"]
    said = EvaluationSettings(changes={**TINY, "source": "curated"})
    assert evaluation_table(found, said, "out")[1] == rows
    default = dataclasses.replace(found, settings={**found.settings, "source": "default"})
    with pytest.raises(ConfigError, match="source = 'curated', and the set that is evaluated has 'default'"):
        evaluation_table(default, said, "out")


@pytest.mark.usefixtures("_here")
def test_real_images_are_not_drawn_anew_where_those_of_an_artifact_are(real: Path, tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    save_untrained_artifact(folder, "animals", ClassList(("ant", "bee", "cat")))
    found = artifact_to_evaluate(str(folder), str(real), 2)
    changes = {**TINY, "epochs": 2, "resample_every": 1, "output": str(tmp_path / "out")}
    how = EvaluationSettings(whole=True, seeds=1, changes=changes)
    table, rows = evaluation_table(found, how, "out")
    assert [row.student(0).resample_every for row in rows] == [1, 0, 0] and FRESH in table.notes
    document = evaluate_set(found, how, str(tmp_path / "out"), "d3hr evaluate", jobs=1, progress=False)
    assert [len(row["top1"]["values"]) for row in document["rows"]] == [1, 1, 1]
    plain = dataclasses.replace(how, changes={**changes, "resample_every": 0})
    table, rows = evaluation_table(found, plain, "out")
    assert FRESH not in table.notes and [row.student(0).resample_every for row in rows] == [0, 0, 0]


def test_the_command_says_how_an_artifact_makes_its_images(real: Path, tmp_path: Path) -> None:
    folder = save_separate_artifact(tmp_path / "artifact").folder
    command = ["evaluate", folder, "--real", real, "--source", "curated", "--output", tmp_path / "out"]
    assert "stores no order of curated images" in fail(1, *command)
    images = ["evaluate", real / "val", "--real", real, "--source", "curated", "--output", tmp_path / "out"]
    assert "--source says how an artifact makes images" in fail(2, *images)
