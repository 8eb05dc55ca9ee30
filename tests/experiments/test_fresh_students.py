"""Students whose images are drawn anew every few epochs: what they see, and what goes on after a kill."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments.student_inputs import fingerprints, run_folder
from d3hr_datasets.experiments.student_run import run_student
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.image_sets.channels import with_channels
from d3hr_datasets.image_sets.training_set_settings import TrainingSet
from d3hr_datasets.image_sets.training_sets import training_set
from d3hr_datasets.runs.run_folder import RunFolder
from tests.support.tiny import save_untrained_artifact
from tests.support.tiny_students import CLASSES, student

IPC = 2


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an untrained artifact of the classes of the real images."""
    folder = tmp_path_factory.mktemp("artifact")
    save_untrained_artifact(folder, "animals", ClassList(tuple(CLASSES)))
    return folder


def _student(real: Path, output: Path, artifact: Path, **changes: Any) -> StudentSettings:
    values = {"source": "default", "ipc": IPC, "artifact": str(artifact), "resample_every": 2}
    return student(real, output, **{**values, **changes})


def _losses(settings: StudentSettings) -> list[float]:
    with (run_folder(settings, fingerprints(settings)) / "metrics.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_a_killed_student_goes_on_with_the_images_it_would_have_had(
    real: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _student(real, tmp_path / "whole", artifact)
    result = run_student(whole, progress=False)
    assert result["num_images"] == 3 * IPC and result["settings"]["resample_every"] == 2
    cut = dataclasses.replace(whole, output=str(tmp_path / "cut"), workers=1)
    replace_metrics = RunFolder.replace_metrics

    def interrupt(run: RunFolder, rows: list[dict[str, Any]]) -> None:
        replace_metrics(run, rows)
        if len(rows) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "replace_metrics", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_student(cut, progress=False)
    assert run_student(cut, progress=False)["top1"] == result["top1"]
    losses = _losses(whole)
    assert _losses(cut) == losses and len(losses) == 4
    plain = dataclasses.replace(whole, resample_every=0)
    run_student(plain, progress=False)
    assert _losses(plain)[:2] == losses[:2] and _losses(plain)[2:] != losses[2:]
    assert run_folder(plain, {}) != run_folder(whole, {})
    for name in ("whole", "cut"):  # whoever is trained needs none of the other groups any more
        images = tmp_path / name / "images"
        assert list(images.glob("animals-ipc2-seed0-*")) and not list(images.glob("*-epoch*"))


def test_no_group_is_made_for_nobody(artifact: Path, tmp_path: Path) -> None:
    settings = TrainingSet(dataset="x", source="default", ipc=IPC, artifact=str(artifact), resample_every=2)
    images: Any = training_set(settings, tmp_path, passes=4).images
    for epoch in range(4):
        images.set_epoch(epoch)
    assert len(list(tmp_path.glob("*-epoch1-*"))) == 1 and not list(tmp_path.glob("*-epoch2-*"))
    images.close()
    assert not list(tmp_path.glob("*-epoch*"))


def test_soft_labels_are_asked_for_every_view(
    real: Path, artifact: Path, teacher: Path, tmp_path: Path
) -> None:
    soft = {"labels": "soft", "teacher": f"local-dir:{teacher}", "epochs": 2, "resample_every": 1}
    fresh = _student(real, tmp_path, artifact, **soft)
    plain = dataclasses.replace(fresh, resample_every=0)
    for settings in (fresh, plain):
        run_student(settings, progress=False)
    assert _losses(fresh)[0] == _losses(plain)[0] and _losses(fresh)[1] != _losses(plain)[1]


def test_another_group_every_few_passes(tiny_artifact: Path, tmp_path: Path) -> None:
    settings = TrainingSet(
        dataset="none", source="moment_matched", ipc=IPC, artifact=str(tiny_artifact), resample_every=3
    )
    plain = training_set(dataclasses.replace(settings, resample_every=0), tmp_path).images
    grey: Any = training_set(settings, tmp_path, passes=6).images
    colour: Any = with_channels(training_set(settings, tmp_path, passes=6), 3).images
    seen = []
    for epoch in (0, 2, 3, 5):
        grey.set_epoch(epoch)
        colour.set_epoch(epoch)
        seen.append(torch.stack([grey[index][0] for index in range(6)]))
        assert [colour[index][1] for index in range(6)] == [0, 0, 1, 1, 2, 2] == grey.targets
        assert all(torch.equal(colour[index][0], seen[-1][index].expand(3, -1, -1)) for index in range(6))
    assert all(torch.equal(seen[0][index], plain[index][0]) for index in range(6))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[1], seen[2])


def test_groups_are_made_without_a_second_process_where_asked(
    real: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _student(real, tmp_path / "students", artifact)
    alone = dataclasses.replace(settings, keep_epochs=1)
    found = fingerprints(settings)
    assert run_folder(alone, found) == run_folder(settings, found)  # the same student
    monkeypatch.setattr(
        "d3hr_datasets.dataset.background.subprocess.Popen", lambda *_, **__: pytest.fail("a process")
    )
    result = run_student(dataclasses.replace(alone, output=str(tmp_path / "alone")), progress=False)
    monkeypatch.undo()
    assert result["top1"] == run_student(settings, progress=False)["top1"]
    with pytest.raises(ConfigError, match="keep_epochs must be at least 1, not 0"):
        run_student(dataclasses.replace(settings, keep_epochs=0))


def test_what_has_no_other_group_is_refused(real: Path, artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own" / "ant"
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "0.png")
    for changes, message in (
        ({"source": "random_real"}, "source 'random_real' has none"),
        ({"source": "raw_diffusion"}, "source 'raw_diffusion' has none"),
        ({"source": f"images:{folder.parent}"}, "source 'images:.*' has none"),
        ({"source": "whole", "ipc": 0}, "source 'whole' has none"),
        ({"labels": "stored", "teacher": "resnet18"}, "labels 'stored' are those of one set"),
        ({"resample_every": -1}, "resample_every must be at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_student(_student(real, tmp_path, artifact, **changes), progress=False)
    with pytest.raises(ConfigError, match="source 'herding' has none"):
        training_set(TrainingSet(dataset=str(real), source="herding", ipc=1, resample_every=1), tmp_path)


def test_weights_are_those_of_every_group(artifact: Path, tmp_path: Path) -> None:
    settings = TrainingSet(
        dataset="x", source="default", ipc=IPC, artifact=str(artifact), resample_every=1, weights=True
    )
    weights = training_set(settings, tmp_path).weights
    assert weights is not None and weights.tolist() == [1.0] * (3 * IPC)
    refused = dataclasses.replace(settings, source="curated")
    with pytest.raises(ConfigError, match=r"resample_every = 1 .*'curated' has none"):
        training_set(refused, tmp_path)
