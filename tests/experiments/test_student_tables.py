"""Tables of students are trained, checked and written."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from d3hr_datasets.errors import ConfigError, StudentError
from d3hr_datasets.experiments import table_rows, train_table
from d3hr_datasets.experiments.kept_rows import kept_students
from d3hr_datasets.experiments.student_inputs import fingerprints
from d3hr_datasets.experiments.student_run import run_student
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.experiments.table_files import markdown, pick, score, write_table
from d3hr_datasets.experiments.table_rows import Row, expand, load_table
from d3hr_datasets.experiments.train_table import summarize, train_all
from d3hr_datasets.image_sets.training_set_settings import SOURCES
from d3hr_datasets.students.models import create_student
from recipes.tables.rank_architectures import correlations
from tests.recipes.tiny_trainings import TABLES
from tests.support.pools import PoolHere
from tests.support.tiny_students import student


@pytest.fixture
def table_file(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a table of three rows and two seeds on tiny images."""
    values = dataclasses.asdict(student(real, tmp_path / "runs"))
    (tmp_path / "student.yaml").write_text(yaml.safe_dump({**values, "epochs": 1}))
    monkeypatch.setattr(table_rows, "PROTOCOLS", tmp_path)
    table = {
        "title": "A table",
        "config": "student.yaml",
        "seeds": 2,
        "output": str(tmp_path / "results" / "table"),
        "rows": [
            {"grid": {"source": ["random_real"], "ipc": [1, 2]}},
            {"name": "everything", "set": {"source": "whole", "ipc": 0}},
        ],
        "scores": [
            {
                "name": "two",
                "kind": "lrs",
                "real_hard": {"source": "whole"},
                "random_any": {"ipc": 1},
                "distilled_hard": {"ipc": 2},
                "distilled_any": {"ipc": 2},
            }
        ],
        "plot": {"x": "ipc", "series": "source"},
    }
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_tables_name_rows_that_can_be_trained(path: Path) -> None:
    table = load_table(path, [])
    rows = [row.student(0) for row in expand(table)]
    assert rows and all(row.source in SOURCES or row.source.startswith("images:runs/") for row in rows)
    models = {json.dumps([row.student, row.channels, row.image_size, row.student_args]) for row in rows}
    for name, channels, image_size, arguments in map(json.loads, models):
        create_student(name, 10, channels, image_size, arguments)  # refuses what the model does not take
    summaries = [
        {"name": row.name, "settings": dataclasses.asdict(row.student(0)), "top1": {"mean": 50.0}}
        for row in expand(table)
    ]
    for spec in table.scores:
        assert 0 < score(spec, summaries)["value"] < 1
    for axis in table.plot.values():
        assert axis in {field.name for field in dataclasses.fields(StudentSettings)}


def test_a_table_is_trained_and_written(
    table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_table(table_file, ["learning_rate=0.02"], output=tmp_path / "results" / "other")
    rows = expand(table)
    assert [row.name for row in rows] == ["random real, ipc 1", "random real, ipc 2", "everything"]
    assert rows[0].student(1).learning_rate == 0.02 and rows[0].student(1).seed == 1
    # In this process: a spawned one would import everything anew.
    results = {
        (row.name, seed): run_student(row.student(seed), progress=False) for row in rows for seed in (0, 1)
    }
    monkeypatch.setattr(train_table, "ProcessPoolExecutor", PoolHere)
    assert train_all(rows, 2, 1) == results  # found, not trained again
    kept = {key: {"top1": 1.0} for key in results}
    assert train_all(rows, 2, 1, kept=kept) == kept
    write_table(table, [summarize(row, 2, results) for row in rows], "command")
    output = Path(table.output)
    assert sorted(path.name for path in output.parent.iterdir()) == ["other.json", "other.md", "other.png"]
    document = json.loads(output.with_suffix(".json").read_text())
    assert [row["num_images"] for row in document["rows"]] == [3, 6, 12]
    two = [results["random real, ipc 2", seed]["top1"] for seed in (0, 1)]
    assert document["rows"][1]["top1"]["values"] == two
    lrs = document["scores"][0]
    alpha = 0.5 * (lrs["distilled_any"] - lrs["random_any"]) - 0.5 * (
        lrs["real_hard"] - lrs["distilled_hard"]
    )
    assert lrs["value"] == pytest.approx((math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1)))
    text = output.with_suffix(".md").read_text()
    assert f"| random real, ipc 2 | {sum(two) / 2:.1f} ± " in text and "two (LRS)" in text
    _check_what_is_kept(table_file, output.with_suffix(".json"), document["rows"])


def _check_what_is_kept(table_file: Path, written: Path, before: list[dict[str, Any]]) -> None:
    """Check which rows of a table are found again: those that nothing changed for."""
    rows = expand(load_table(table_file, ["learning_rate=0.02"]))
    kept = kept_students(written, rows, 2)
    again = [summarize(row, 2, kept) for row in rows]
    assert again == [{"made_by": "command", **row} for row in before]
    assert kept_students(written.with_name("none.json"), rows, 2) == {}
    more = kept_students(written, rows, 3)  # a seed more: the two that are there are kept
    assert more == kept and len(kept) == 6
    with pytest.raises(ConfigError, match=r"some would be lost\. Say --seeds 2"):
        kept_students(written, rows, 1)
    other = expand(load_table(table_file, ["learning_rate=0.03"]))
    warm = expand(load_table(table_file, ["learning_rate=0.02", "guidance_scale=3"]))
    assert len(kept_students(written, warm, 2)) == 6  # real images know nothing of it
    weighted = expand(load_table(table_file, ["learning_rate=0.02", "weights=true"]))
    assert kept_students(written, other, 2) == kept_students(written, weighted, 2) == {}
    third = {(row.name, 2): {**kept[row.name, 1], "top1": 12.5, "made_by": None} for row in rows}
    mixed = summarize(rows[0], 3, {**kept, **third})
    assert mixed["made_by"] == ["command", "command", None] and mixed["top1"]["values"][2] == 12.5
    document = json.loads(written.read_text())
    document["rows"][2] = summarize(rows[2], 3, {**kept, **third})
    del document["rows"][0]["settings"]["weights"]  # of before there was a choice
    document["rows"][1]["inputs"]["real test"] = "others"
    written.write_text(json.dumps({**document, "command": "later"}))
    found = kept_students(written, rows, 3)
    expected = {("random real, ipc 1", 0): "later", ("random real, ipc 1", 1): "later"}
    expected |= {("everything", 0): "command", ("everything", 1): "command", ("everything", 2): "later"}
    assert {key: result["made_by"] for key, result in found.items()} == expected
    several: list[Any] = [[], {"rows": [1], "command": "c"}, {"rows": [{"name": "a"}], "command": "c"}]
    for damaged in several:
        written.write_text(json.dumps(damaged))
        with pytest.raises(ConfigError, match="no table of students"):
            kept_students(written, rows, 2)


def test_students_of_another_teacher_are_not_kept(
    teacher: Path, real: Path, table_file: Path, tmp_path: Path
) -> None:
    """Also where a teacher has no file here that tells it, as those of the Hub."""
    settings = {"labels": "soft", "teacher": "resnet18.tv_in1k", "ipc": 1}
    row = Row("a row", settings, "student.yaml")

    def written(inputs: dict[str, str]) -> Path:
        values = {"mean": 1.0, "std": 0.0, "values": [1.0]}
        found = json.loads(json.dumps(dataclasses.asdict(row.student(0))))
        kept = {"name": "a row", "settings": {**found, "seed": [0]}, "inputs": inputs, "seconds": 1.0}
        path = tmp_path / "kept.json"
        path.write_text(json.dumps({"rows": [{**kept, "top1": values, "top5": values}], "command": "c"}))
        return path

    inputs = fingerprints(row.student(0))
    assert "teacher" not in inputs
    assert len(kept_students(written(inputs), [row], 1)) == 1
    other = Row("a row", {**settings, "teacher": "resnet50.a1_in1k"}, "student.yaml")
    assert kept_students(written(inputs), [other], 1) == {}
    copies = [Path(shutil.copytree(teacher, tmp_path / name)) for name in ("first", "second")]
    row, moved = (
        Row("a row", {**settings, "teacher": f"local-dir:{copy}"}, "student.yaml") for copy in copies
    )
    path = written(fingerprints(row.student(0)))
    assert len(kept_students(path, [moved], 1)) == 1  # the same weights in another place
    config = copies[1] / "config.json"
    config.write_text(config.read_text().replace('"mean"', '"other"', 1))
    assert kept_students(path, [moved], 1) == {}


def test_names_of_tables_may_have_dots(table_file: Path, tmp_path: Path) -> None:
    values = {"mean": 1.0, "std": None, "values": [1.0]}
    row = {"name": "a", "top1": values, "top5": values, "num_images": 1, "label_bytes": 0, "teacher": None}
    row |= {"tested_on": "test set", "settings": {"source": "whole", "ipc": 0}}
    for name in ("rate-0.1", "rate-0.01"):
        table = load_table(table_file, [], seeds=1, output=tmp_path / "dotted" / name)
        write_table(dataclasses.replace(table, scores=[]), [row], "command")
    found = sorted(path.name for path in (tmp_path / "dotted").iterdir())
    assert found == [f"rate-{rate}.{ending}" for rate in ("0.01", "0.1") for ending in ("json", "md", "png")]


def test_a_row_is_of_the_same_images_throughout(table_file: Path) -> None:
    row = expand(load_table(table_file, []))[0]
    results: Any = {
        (row.name, seed): {"top1": 1.0, "top5": 1.0, "inputs": {"artifact": str(seed)}} for seed in (0, 1)
    }
    with pytest.raises(StudentError, match="different images or teachers"):
        summarize(row, 2, results)


def test_a_row_may_have_a_folder_of_images_for_each_seed() -> None:
    settings = {"source": "images:runs/groups/mine-seed{seed}", "ipc": 10}
    row = Row("mine", settings, "dc/fashion-mnist-ipc10.yaml")
    assert [row.student(seed).source[-5:] for seed in (0, 7)] == ["seed0", "seed7"]
    results: Any = {
        ("mine", seed): {
            **dict.fromkeys(("top1", "top5", "seconds"), 1.0),
            "inputs": {"images": str(seed)},
            "settings": dataclasses.asdict(row.student(seed)),
        }
        for seed in (0, 1)
    }
    assert summarize(row, 2, results)["settings"]["source"].endswith("seed0")


def test_tables_are_checked(table_file: Path, tmp_path: Path) -> None:
    table = load_table(table_file, [], seeds=1)
    with pytest.raises(ConfigError, match="unknown keys"):
        expand(dataclasses.replace(table, rows=[{"sets": {}}]))
    with pytest.raises(ConfigError, match="the same name"):
        expand(dataclasses.replace(table, rows=[{"set": {"ipc": 1}}, {"set": {"ipc": 1}}]))
    with pytest.raises(ConfigError, match="unknown settings"):
        expand(dataclasses.replace(table, set={"epoch": 1}))[0].student(0)
    with pytest.raises(ConfigError, match="must describe one row"):
        pick([{"name": "a", "settings": {}}], {"ipc": 3})
    rows: list[dict[str, Any]] = [
        {
            "name": "a",
            "top1": {"mean": 1.0, "std": None},
            "top5": {"mean": 2.0, "std": None},
            "num_images": 3,
            "label_bytes": None,
            "teacher": "t",
            "tested_on": "test set",
            "settings": {"teacher": "resnet18"},
        }
    ]
    assert "| a | 1.0 | 2.0 | 3 | teacher at hand |" in markdown(table, rows, [])
    (tmp_path / "model.safetensors").write_bytes(bytes(1234))
    rows[0]["settings"]["teacher"] = f"local-dir:{tmp_path}"
    assert "| a | 1.0 | 2.0 | 3 | teacher, 1,234 |" in markdown(table, rows, [])
    shown = dataclasses.replace(
        table, rows=[{"set": {"torch_compile": True, "ipc": 3}, "grid": {"source": ["modes"]}}]
    )
    assert [row.name for row in expand(shown)] == ["modes, ipc 3"]


def test_rank_correlation_of_architectures() -> None:
    rows = [
        {
            "settings": {"source": source, "student": "convnet3", "student_args": {"width": width}},
            "top1": {"mean": accuracy},
        }
        for source, accuracies in {
            "whole": (90, 91, 92),
            "modes": (70, 72, 71),
            "random_real": (3, 2, 1),
        }.items()
        for width, accuracy in zip((1, 2, 3), accuracies, strict=True)
    ]
    found = correlations(rows)
    assert found["modes"]["spearman"] == pytest.approx(0.5)
    assert found["random_real"]["kendall"] == pytest.approx(-1)
    assert found["modes"]["architectures"] == 3
