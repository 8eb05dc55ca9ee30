"""Teachers answer in the order of the data set, or are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.dataset.artifact_registry import EMBEDDED_TEACHERS, embedded_teacher
from d3hr_datasets.errors import ArtifactNotFoundError, TeacherError
from d3hr_datasets.students.teachers import load_teacher
from d3hr_datasets.students.views import (
    TensorImages,
)
from tests.support.tiny_students import CLASSES


def test_a_teacher_answers_in_the_order_of_the_data_set(teacher_folder: Path, images: TensorImages) -> None:
    teacher = load_teacher(f"local-dir:{teacher_folder}", CLASSES)
    views = images.images.float() / 255
    logits = teacher.model((views - 0.4) / 0.2)
    assert torch.allclose(teacher(views), logits[:, [1, 2, 0]])
    assert torch.equal(load_teacher(f"local-dir:{teacher_folder}", ["Bee"])(views), teacher(views)[:, 1:2])
    assert teacher.features(views).shape == (10, 4)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.train().model.training


def test_teachers_of_other_classes_are_refused(teacher_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"does not know the classes \['dog'\] \(1 of 2\)"):
        load_teacher(f"local-dir:{teacher_folder}", ["ant", "dog"])
    weights = tmp_path / "weights.safetensors"
    arguments: dict[str, Any] = {"num_classes": 3, "in_chans": 1, "img_size": 12, "width": 4}
    state = timm.create_model("convnet3", **arguments).state_dict()
    arguments["pretrained_cfg_overlay"] = {"mean": (0.4,), "std": (0.2,)}
    save_file({f"my.{index:02d}": tensor for index, tensor in enumerate(state.values())}, weights)
    with pytest.raises(TeacherError, match="does not tell its classes"):
        load_teacher("convnet3", CLASSES, weights=weights, **arguments)
    teacher = load_teacher("convnet3", CLASSES, weights=weights, class_names=CLASSES, **arguments)
    for name, tensor in teacher.model.state_dict().items():  # other names, the same order and shapes
        assert torch.equal(tensor, state[name])
    with pytest.raises(TeacherError, match="fit the 14 of the architecture neither"):
        load_teacher("convnet3", CLASSES, weights=weights, class_names=CLASSES, **{**arguments, "width": 8})
    for name in ("nothing", f"local-dir:{tmp_path}", "folder/nothing"):
        with pytest.raises(TeacherError, match=f"the teacher '{name}' cannot be made"):
            load_teacher(name, CLASSES)
    with pytest.raises(TeacherError, match="cannot be read"):
        load_teacher("convnet3", CLASSES, weights=tmp_path / "none.pth", class_names=CLASSES, **arguments)


def _without_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["architecture"]
    (folder / "config.json").write_text(json.dumps(config))


def _normalised(mean: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        std = [0.2] * len(mean) if isinstance(mean, list) else [0.2]
        config["pretrained_cfg"] = {**config["pretrained_cfg"], "mean": mean, "std": std}
        (folder / "config.json").write_text(json.dumps(config))

    return change


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_truncated, "cannot be made: SafetensorError"),
        (_without_architecture, "cannot be made: KeyError: 'architecture'"),
        (_normalised([0.4] * 4), "normalises images of 4 channels, and its network takes 1"),
        (_normalised("grey"), "does not tell how its images are normalised"),
        (_normalised([float("nan")]), "does not tell how its images are normalised"),
    ],
)
def test_damaged_teachers_are_refused(
    change: Callable[[Path], None], says: str, teacher_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(teacher_folder, tmp_path / "teacher")
    change(folder)
    with pytest.raises(TeacherError, match=says):
        load_teacher(f"local-dir:{folder}", CLASSES)


def test_truncated_weights_of_a_file_are_refused(teacher_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(teacher_folder, tmp_path / "teacher")
    _truncated(folder)
    arguments: dict[str, Any] = {"num_classes": 3, "in_chans": 1, "img_size": 12, "width": 4}
    with pytest.raises(TeacherError, match=r"weights .*model\.safetensors cannot be read"):
        load_teacher(
            "convnet3", CLASSES, weights=folder / "model.safetensors", class_names=CLASSES, **arguments
        )


def test_features_that_are_no_numbers_are_refused(
    teacher_folder: Path, images: TensorImages, tmp_path: Path
) -> None:
    folder = shutil.copytree(teacher_folder, tmp_path / "teacher")
    state = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    state[min(state)].fill_(torch.nan)
    (folder / "model.safetensors").unlink()
    save_file(state, folder / "model.safetensors")
    teacher = load_teacher(f"local-dir:{folder}", CLASSES)
    with pytest.raises(TeacherError, match=r"features of the teacher 'local-dir:.*' are not finite"):
        teacher.features(images.images.float() / 255)


def test_the_embedded_teacher_knows_fashion_mnist() -> None:
    names = list(ClassList.packaged("fashion-mnist").names)
    teacher = load_teacher("embedded:fashion-mnist", names[::-1])
    assert (teacher.name, teacher.columns.tolist()) == ("embedded:fashion-mnist", [*reversed(range(10))])
    by_folder = load_teacher(f"local-dir:{embedded_teacher('fashion-mnist')}", names)
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher(images), by_folder(images).flip(1))


def test_other_teachers_are_not_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TeacherError, match=r"no teacher of 'cifar10' .*'embedded:fashion-mnist'.*local-dir"):
        load_teacher("embedded:cifar10", ["cat"])
    monkeypatch.setitem(EMBEDDED_TEACHERS, "fashion-mnist", "not-there")
    with pytest.raises(ArtifactNotFoundError, match=r"the teacher of fashion-mnist .*not-there.*FILE\.whl"):
        load_teacher("embedded:fashion-mnist", ["Bag"])
