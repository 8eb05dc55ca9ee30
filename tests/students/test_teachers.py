"""Teachers answer in the order of the data set, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

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
