"""The student recipes: configs, training sets, one student from YAML, tables, and timm's own way."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from PIL import Image

from d3hr_datasets import Artifact, D3HRDataset, GroupSamplingConfig
from d3hr_datasets.dataset.registry import embedded_artifact
from d3hr_datasets.students.models import create_student
from recipes.common.errors import RecipeError
from recipes.common.run_folder import RunFolder
from recipes.common.settings import load_settings
from recipes.tables import students as evaluate_table
from recipes.tables.rank_architectures import correlations
from recipes.tables.students import expand, load_table, markdown, score, train_all, write_table
from recipes.train import student as train_student
from recipes.train.student import run_student
from recipes.train.student_export import export_student
from recipes.train.student_inputs import fingerprints, run_folder
from recipes.train.student_settings import StudentSettings
from recipes.train.training_sets import (
    IN_MEMORY,
    SOURCES,
    TrainingSet,
    images_to_test_on,
    open_artifact,
    real_images,
    training_set,
)
from tests.support.tampering import flip_byte

RECIPES = Path(__file__).parents[2] / "recipes"
STUDENTS = RECIPES / "configs" / "students"
TABLES = RECIPES / "configs" / "tables"
CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of real images: train/ and val/, three classes of 12 x 12 pictures of one colour."""
    folder = tmp_path_factory.mktemp("real")
    for split, number in (("train", 4), ("val", 2)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                colour = [40 + 20 * index] * 3
                colour[label] = 255
                Image.new("RGB", (12, 12), tuple(colour)).save(folder / split / name / f"{index}.png")
    return folder


def student(real: Path, output: Path, **changes: Any) -> StudentSettings:
    values: dict[str, Any] = {
        "student": "convnet3",
        "student_args": {"width": 4},
        "image_size": 12,
        "channels": 3,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "epochs": 4,
        "batch_size": 4,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "schedule": "step",
        "milestones": [0.5],
        "labels": "hard",
        "dataset": str(real),
        "source": "random_real",
        "ipc": 2,
        "output": str(output),
        "minutes_between_checkpoints": 0.0,
    }
    return StudentSettings(**{**values, **changes})


@pytest.fixture(scope="module")
def teacher(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a teacher that a recipe trained for an epoch and exported."""
    folder = tmp_path_factory.mktemp("teacher")
    export = folder / "exported"
    run_student(student(real, folder, source="whole", ipc=0, epochs=1, export=str(export)), progress=False)
    return export


def configs() -> list[Path]:
    return sorted(path for path in STUDENTS.rglob("*.yaml") if path.name != "base.yaml")


@pytest.mark.parametrize("path", configs(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_configs_are_the_published_protocols(path: Path) -> None:
    settings, name = load_settings(StudentSettings, path, []), path.parent.name
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    command = f"python -m recipes.train.student {path.relative_to(RECIPES.parent).as_posix()}"
    assert any(command in line for line in header)
    text = " ".join(line.removeprefix("#").strip() for line in header)
    assert "Expected time:" in text and "Expected accuracy, %:" in text
    if name == "teacher":
        assert settings.source == "whole" and settings.export
        return
    assert path.stem == f"{path.stem.rpartition('-ipc')[0]}-ipc{settings.ipc}"
    if name == "soft":  # this project's own
        assert settings.labels == "soft" and settings.learning_rate_factor(settings.epochs - 1) < 0.05
        assert (settings.batch_size, settings.crop_scale) == (10, [])
        return
    classes = {"cifar100": 100, "imagenet": 1000, "tiny-imagenet": 200}.get(path.stem.rpartition("-")[0], 10)
    soft = (settings.labels, settings.temperature, settings.schedule, settings.cutmix, settings.decayed)
    batches = None
    if name in {"rded", "d3hr"}:
        assert soft == ("soft", 20, "half_cosine", 1, "matrices") and settings.teacher
        assert (settings.optimizer, settings.learning_rate, settings.weight_decay) == ("adamw", 1e-3, 0.01)
        if "fashion" not in path.stem:
            assert (settings.resize or settings.image_size) == settings.image_size // 7 * 8
    if name == "rded":
        batches = {1: 10, 10: 50, 50: 100}[settings.ipc] * (2 if classes in {100, 1000} else 1)
        assert settings.epochs == 300
        assert settings.crop_scale == ([0.5, 1] if classes == 1000 else [1, 1])
    elif name == "d3hr":
        batches = {1: 15, 10: 50, 50: 100, 100: 100}[settings.ipc] * (2 if classes == 100 else 1)
        woof = {10: 2000, 50: 1500, 100: 1000}[settings.ipc] if "imagewoof" in path.stem else None
        small = "cifar" in path.stem or "fashion" in path.stem
        assert settings.epochs == (woof or (400 if small else 300))
        assert settings.crop_scale == [0.08, 1]
    elif name in {"minimax", "igd"}:
        batches = 64
        assert settings.epochs == {10: 2000, 50: 1500, 100: 1000}[settings.ipc]
        assert (settings.labels, settings.student, settings.crop_scale) == ("hard", "resnetap10", [0.5, 1])
        assert settings.learning_rate_factor(settings.epochs - 1) == pytest.approx(0.2**2)
        assert settings.optimizer == ("sgd" if name == "minimax" else "adamw")
    elif name in {"dc", "dsa"}:
        batches = 256
        assert (settings.epochs, settings.dsa) == ((300, False) if name == "dc" else (1000, True))
        assert (settings.optimizer, settings.learning_rate, settings.weight_decay) == ("sgd", 0.01, 5e-4)
    assert settings.batch_size == batches


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_tables_name_rows_that_can_be_trained(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_table, "STUDENTS", STUDENTS)
    table = load_table(path, [])
    rows = [row.student(0) for row in expand(table)]
    assert rows and all(row.source in SOURCES for row in rows)
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


def test_settings_are_read_over_their_base_and_checked(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("epochs: 3\nbatch_size: 2\n")
    values = {"base": "base.yaml", "batch_size": 8, "timestep": None, "guidance_scale": 2}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError, match="missing settings"):
        load_settings(StudentSettings, tmp_path / "config.yaml", [])
    full = STUDENTS / "dc" / "fashion-mnist-ipc1.yaml"
    settings = load_settings(StudentSettings, full, ["timestep=200", "guidance_scale=2"])
    assert (settings.timestep, settings.guidance_scale, settings.learning_rate) == (200, 2.0, 0.01)
    with pytest.raises(RecipeError, match=r"unknown settings \['epoch'\]"):
        load_settings(StudentSettings, full, ["epoch=2"])
    with pytest.raises(RecipeError, match="timestep = 'late' must be a int"):
        load_settings(StudentSettings, full, ["timestep=late"])


@pytest.mark.parametrize(
    "source", ["default", "independent", "vae_gaussians", "search", "moment_matched", "raw_diffusion"]
)
def test_generated_sets(source: str, tiny_artifact: Path, tmp_path: Path) -> None:
    settings = TrainingSet(
        dataset="none", source=source, ipc=2, seed=1, artifact=str(tiny_artifact), num_candidates=3
    )
    made, again = (training_set(settings, tmp_path / name) for name in ("a", "b"))
    assert (made.classes, [made.images[i][1] for i in range(6)]) == (
        ["ant", "bee/wasp", "cat"],
        [0, 0, 1, 1, 2, 2],
    )
    assert all(torch.equal(made.images[i][0], again.images[i][0]) for i in range(6))
    if source == "moment_matched":
        dataset = D3HRDataset(tiny_artifact, tmp_path / "c", 2, 1, device="cpu")
        assert list(dataset[3][0].get_flattened_data()) == made.images[3][0].flatten().tolist()
        assert len(dataset) <= IN_MEMORY


def test_settings_of_generation_reach_the_data_set(tmp_path: Path) -> None:
    embedded = str(embedded_artifact("fashion-mnist"))
    plain = TrainingSet(dataset="fashion-mnist", source="modes", ipc=1, artifact=embedded)
    default = open_artifact(plain, tmp_path)
    assert default.sampling == GroupSamplingConfig("modes")
    changed = dataclasses.replace(plain, mode_spread=1.3, timestep=200, guidance_scale=6.0)
    other = open_artifact(changed, tmp_path)
    assert other.sampling == GroupSamplingConfig("modes", mode_spread=1.3)
    assert (other.decode.timestep, other.decode.guidance_scale) == (200, 6.0)
    assert default.decode != other.decode
    with pytest.raises(RecipeError, match="mode_spread is of source 'modes', not of 'default'"):
        open_artifact(dataclasses.replace(changed, source="default"), tmp_path)


def test_baselines_of_real_images(real: Path, tmp_path: Path) -> None:
    def chosen(source: str, seed: int = 0) -> list[tuple[int, int]]:
        settings = TrainingSet(dataset=str(real), source=source, ipc=1, seed=seed)
        images = training_set(settings, tmp_path, brightness).images
        return [(min(image.getpixel((0, 0))), label) for image, label in (images[i] for i in range(3))]

    def brightness(images: Any) -> torch.Tensor:
        return torch.tensor([[float(min(images[i][0].getpixel((0, 0))))] for i in range(len(images))])

    # The four pictures of a class have 40, 60, 80, 100; two are as near to the mean.
    assert [label for _, label in chosen("herding")] == [0, 1, 2]
    assert {value for value, _ in chosen("herding") + chosen("k_center")} == {60}
    assert len({tuple(chosen("random_real", seed)) for seed in range(5)}) > 1
    assert chosen("random_real", 3) == chosen("random_real", 3)
    whole = training_set(TrainingSet(dataset=str(real), source="whole"), tmp_path)
    assert (len(whole.images), whole.classes) == (12, CLASSES)


def test_training_sets_are_checked(real: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"source": "noise"}, "must be one of"),
        ({"source": "whole", "ipc": 3}, "do not go together"),
        ({"source": "herding", "ipc": 1}, "give a teacher"),
        ({"dataset": "mnist", "source": "whole"}, "or a folder with train/"),
        ({"source": "whole", "select": True}, "no held-out part"),
        ({"source": "whole", "subset": "imagewoof"}, "no folders"),
    ):
        values: dict[str, Any] = {"dataset": str(real), **changes}
        with pytest.raises(RecipeError, match=message):
            training_set(TrainingSet(**values), tmp_path)
    settings = TrainingSet(dataset=str(real), source="default", ipc=1, artifact=str(tiny_artifact))
    with pytest.raises(RecipeError, match=r"\['ant', 'bee', 'cat'\].*\['ant', 'bee/wasp', 'cat'\]"):
        images_to_test_on(settings, training_set(settings, tmp_path))


def test_a_student_from_settings_to_result(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = student(real, tmp_path / "whole")
    result = run_student(settings, progress=False)
    folder = run_folder(settings, {})
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.csv", "result.json", "settings.yaml"]
    assert json.loads((folder / "result.json").read_text()) == result
    assert load_settings(StudentSettings, folder / "settings.yaml", []) == settings
    assert (result["num_images"], result["num_test_images"], result["tested_on"]) == (6, 6, "test set")

    monkeypatch.setattr(train_student, "evaluate", None)
    assert run_student(settings, progress=False) == result  # not trained again
    with pytest.raises(RecipeError, match="weights were not kept"):
        run_student(dataclasses.replace(settings, export=str(tmp_path / "exported")), progress=False)
    monkeypatch.undo()

    replace_metrics, interrupted = (
        RunFolder.replace_metrics,
        dataclasses.replace(settings, output=str(tmp_path / "cut")),
    )

    def interrupt(run: RunFolder, rows: list[dict[str, Any]]) -> None:
        replace_metrics(run, rows)
        if len(rows) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "replace_metrics", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_student(interrupted, progress=False)
    monkeypatch.undo()
    interrupted = dataclasses.replace(interrupted, minutes_between_checkpoints=2.0)  # of no account
    assert run_student(interrupted, progress=False)["top1"] == result["top1"]
    losses = []
    for path in (folder, run_folder(interrupted, {})):
        with (path / "metrics.csv").open(newline="") as file:
            losses.append([(row["epoch"], row["loss"]) for row in csv.DictReader(file)])
    assert losses[0] == losses[1] and [epoch for epoch, _ in losses[0]] == ["0", "1", "2", "3"]


def test_soft_labels_from_an_exported_teacher(real: Path, teacher: Path, tmp_path: Path) -> None:
    config = json.loads((teacher / "config.json").read_text())
    assert config["label_names"] == CLASSES
    assert config["pretrained_cfg"]["input_size"] == [3, 12, 12]
    assert timm.create_model(f"local-dir:{teacher}", pretrained=True).num_classes == 3
    soft = {"teacher": f"local-dir:{teacher}", "epochs": 1}
    assert run_student(student(real, tmp_path, labels="soft", **soft), progress=False)["label_bytes"] is None
    stored = run_student(
        student(real, tmp_path, labels="stored", top_k=2, storage="int8", **soft), progress=False
    )
    assert stored["label_bytes"] == 6 * (2 * 2 + 4)
    herding = run_student(student(real, tmp_path, source="herding", ipc=1, **soft), progress=False)
    assert (herding["num_images"], herding["teacher"]) == (3, None)
    with pytest.raises(RecipeError, match="need a teacher"):
        run_student(student(real, tmp_path, labels="soft"))
    with pytest.raises(RecipeError, match=r"nowhere is missing; .*teacher/FILE --set export=nowhere"):
        run_student(student(real, tmp_path, labels="soft", teacher="local-dir:nowhere"))


def test_a_changed_teacher_is_another_student(real: Path, teacher: Path, tmp_path: Path) -> None:
    settings = student(real, tmp_path, labels="soft", teacher=f"local-dir:{teacher}")
    inputs = fingerprints(settings)
    assert set(inputs) == {"teacher"} and len(inputs["teacher"]) == 64
    assert run_folder(settings, inputs) != run_folder(settings, {"teacher": "0"})
    assert run_folder(settings, inputs) == run_folder(dataclasses.replace(settings, workers=2), inputs)


def test_changed_images_are_another_student(real: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    """Results of another decoder, which leaves the statistics alone, or of other files, are not taken."""
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_artifact, folder)
    for source in ("default", "reconstructed"):
        settings = student(real, tmp_path, source=source, ipc=1, artifact=str(folder))
        before = fingerprints(settings)
        flip_byte(folder / "model" / "vae" / "diffusion_pytorch_model.safetensors", -1)
        Artifact.load(folder).write_metadata()
        assert fingerprints(settings) != before
    images = tmp_path / "images"
    shutil.copytree(real / "train", images)
    settings = student(real, tmp_path, source=f"folder:{images}", ipc=0)
    before = fingerprints(settings)
    next(images.rglob("*.png")).unlink()
    assert fingerprints(settings) != before


def test_exported_folders_have_the_classes_of_the_real_images(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label, name in enumerate(CLASSES):
        shutil.copytree(real / "train" / name, tmp_path / "out" / f"{label:03d}-{name}_or_so")
    classes = [f"{name}/or so" for name in CLASSES]
    testing = real_images(TrainingSet(dataset=str(real), source="whole"), train=False)
    monkeypatch.setattr(
        "recipes.train.training_sets.real_images",
        lambda *_, **__: dataclasses.replace(testing, classes=classes),
    )
    settings = TrainingSet(dataset=str(real), source=f"folder:{tmp_path / 'out'}", ipc=4)
    images = training_set(settings, tmp_path)
    assert images.classes == images_to_test_on(settings, images).classes == classes
    with pytest.raises(RecipeError, match="4 to 4 images per class, not ipc 3"):
        training_set(dataclasses.replace(settings, ipc=3), tmp_path)


@pytest.fixture
def table_file(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a table of three rows and two seeds on tiny images."""
    values = dataclasses.asdict(student(real, tmp_path / "runs"))
    (tmp_path / "student.yaml").write_text(yaml.safe_dump({**values, "epochs": 1}))
    monkeypatch.setattr(evaluate_table, "STUDENTS", tmp_path)
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
    monkeypatch.setattr(evaluate_table, "ProcessPoolExecutor", _Here)
    assert train_all(rows, 2, 1) == results  # found, not trained again
    write_table(table, [evaluate_table.summarize(row, 2, results) for row in rows], "command")
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


class _Here:
    """A pool that works in this process."""

    def __init__(self, jobs: int, context: Any) -> None: ...

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: Any) -> None: ...

    def submit(self, function: Any, *arguments: Any) -> Any:
        from concurrent.futures import Future

        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


def test_tables_are_checked(table_file: Path, tmp_path: Path) -> None:
    table = load_table(table_file, [], seeds=1)
    with pytest.raises(RecipeError, match="unknown keys"):
        expand(dataclasses.replace(table, rows=[{"sets": {}}]))
    with pytest.raises(RecipeError, match="the same name"):
        expand(dataclasses.replace(table, rows=[{"set": {"ipc": 1}}, {"set": {"ipc": 1}}]))
    with pytest.raises(RecipeError, match="unknown settings"):
        expand(dataclasses.replace(table, set={"epoch": 1}))[0].student(0)
    with pytest.raises(RecipeError, match="must describe one row"):
        evaluate_table.pick([{"name": "a", "settings": {}}], {"ipc": 3})
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


def test_students_are_exported_in_half_precision(real: Path, tmp_path: Path) -> None:
    model = timm.create_model("convnet3", num_classes=3, in_chans=3, img_size=12, width=4)
    settings = student(real, tmp_path, export=str(tmp_path / "exported"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = {"top1": 51.234, "tested_on": "test set", "num_test_images": 6}
    export_student(model, settings, CLASSES, result)
    assert "Top-1 51.23 % on the test set (6 images)" in (tmp_path / "exported" / "README.md").read_text()
    loaded = timm.create_model(f"local-dir:{tmp_path / 'exported'}", pretrained=True)
    for name, tensor in loaded.state_dict().items():
        assert torch.allclose(tensor, before[name], atol=1e-3)
    size = (tmp_path / "exported" / "model.safetensors").stat().st_size
    assert size < 2.5 * sum(parameter.numel() for parameter in model.parameters()) + 4000
