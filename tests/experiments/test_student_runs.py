"""One student from its settings to its result, its labels and its export."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

from d3hr_datasets import Artifact
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments import student_run
from d3hr_datasets.experiments.student_export import export_student
from d3hr_datasets.experiments.student_inputs import fingerprints, run_folder
from d3hr_datasets.experiments.student_run import run_student
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.runs.settings_files import load_settings
from tests.support.tampering import flip_byte
from tests.support.tiny_students import CLASSES, student


def test_a_student_from_settings_to_result(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = student(real, tmp_path / "whole")
    result = run_student(settings, progress=False)
    folder = run_folder(settings, fingerprints(settings))
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.csv", "result.json", "settings.yaml"]
    assert json.loads((folder / "result.json").read_text()) == result
    assert load_settings(StudentSettings, folder / "settings.yaml", []) == settings
    assert (result["num_images"], result["num_test_images"], result["tested_on"]) == (6, 6, "test set")

    monkeypatch.setattr(student_run, "evaluate", None)
    assert run_student(settings, progress=False) == result  # not trained again
    with pytest.raises(ConfigError, match="weights were not kept"):
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
    for path in (folder, run_folder(interrupted, fingerprints(interrupted))):
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
    with pytest.raises(ConfigError, match="need a teacher"):
        run_student(student(real, tmp_path, labels="soft"))
    with pytest.raises(
        ConfigError, match=r"nowhere is missing; .*d3hr train student teacher .*--export nowhere"
    ):
        run_student(student(real, tmp_path, labels="soft", teacher="local-dir:nowhere"))


def test_a_changed_teacher_is_another_student(real: Path, teacher: Path, tmp_path: Path) -> None:
    settings = student(real, tmp_path, labels="soft", teacher=f"local-dir:{teacher}")
    inputs = fingerprints(settings)
    assert set(inputs) == {"real test", "real train", "teacher", "teacher config"}
    assert len(inputs["teacher"]) == len(inputs["teacher config"]) == 64
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
    settings = student(real, tmp_path, source=f"images:{images}", ipc=0)
    before = fingerprints(settings)
    next(images.rglob("*.png")).unlink()
    assert fingerprints(settings) != before


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


def test_images_behind_links_and_real_images_are_part_of_a_run(real: Path, tmp_path: Path) -> None:
    shutil.copytree(real, tmp_path / "real")
    shutil.copytree(real / "train", tmp_path / "elsewhere")
    (tmp_path / "linked").mkdir()
    for name in CLASSES:
        (tmp_path / "linked" / name).symlink_to(tmp_path / "elsewhere" / name)
    settings = student(tmp_path / "real", tmp_path, source=f"images:{tmp_path / 'linked'}")
    before = fingerprints(settings)
    Image.new("RGB", (12, 12), (9, 9, 9)).save(tmp_path / "elsewhere" / "bee" / "0.png")
    changed = fingerprints(settings)
    assert changed["images"] != before["images"] and changed["real test"] == before["real test"]
    Image.new("RGB", (12, 12), (9, 9, 9)).save(tmp_path / "real" / "val" / "bee" / "0.png")
    assert fingerprints(settings)["real test"] != before["real test"]
    shutil.rmtree(tmp_path / "real" / "val" / "cat")
    with pytest.raises(ConfigError, match=r"different classes: .*\['cat'\]"):
        run_student(settings, progress=False)


def test_the_weights_of_another_student_are_not_taken_for_its_own(real: Path, tmp_path: Path) -> None:
    export = {"export": str(tmp_path / "exported"), "epochs": 1}
    for seed in (0, 1):
        run_student(student(real, tmp_path, seed=seed, **export), progress=False)
    run_student(student(real, tmp_path, seed=1, **export), progress=False)
    with pytest.raises(ConfigError, match="its weights were not kept"):
        run_student(student(real, tmp_path, seed=0, **export), progress=False)
