""""""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from timm.data import ImageNetInfo
from torchvision.models import ResNet18_Weights

from d3hr_datasets import D3HRDataset, D3HRImageNet, check_teacher
from d3hr_datasets.errors import TeacherError
from tests.support.tiny import CLASSES


def _weights(names: list[str]) -> Any:
    return SimpleNamespace(meta={"categories": names})


def _transformers(names: list[str]) -> Any:
    return SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(names))))


def _timm(names: list[str]) -> Any:
    model: Any = timm.create_model("test_vit", num_classes=len(names))
    model.pretrained_cfg = {**model.pretrained_cfg, "label_names": names}
    return model


KINDS: list[Callable[[list[str]], Any]] = [_weights, _transformers, _timm, list]


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_in_another_order_is_an_error(
    kind: Callable[[list[str]], Any], tiny_artifact: Path, tmp_path: Path
) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path, 1)
    assert check_teacher(dataset, kind(["Ant", "bee/wasp, wasp", "cat"])).tolist() == [0, 1, 2]
    with pytest.raises(TeacherError, match=r"class label 0 'cat'.*class label 2 \('cat'\)"):
        check_teacher(dataset, kind(["cat", "bee/wasp", "ant"]))
    with pytest.raises(TeacherError, match="knows other classes, such as 'dog'"):
        check_teacher(dataset, kind(["dog", "emu", "fox"]))
    with pytest.raises(TeacherError, match="has 4 classes, the data set keeps 3 of 3"):
        check_teacher(dataset, kind([*CLASSES, "dog"]))


def test_kept_classes_are_selected_from_a_teacher_of_all(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path, 1, classes=["cat", "ant"])
    assert check_teacher(dataset, CLASSES).tolist() == [2, 0]
    assert check_teacher(dataset, ["cat", "ant"]).tolist() == [0, 1]
    assert check_teacher(dataset, {"1": "ant", "0": "cat"}).tolist() == [0, 1]
    with pytest.raises(TeacherError, match="class label 0 'ant'"):
        check_teacher(dataset, ["ant", "cat"])


def test_all_classes_in_another_order_are_found_in_either(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path, 1, classes=[2, 0, 1])
    assert check_teacher(dataset, CLASSES).tolist() == [2, 0, 1]
    assert check_teacher(dataset, [CLASSES[label] for label in (2, 0, 1)]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("subset", [None, "imagewoof"])
def test_teachers_of_imagenet_agree(subset: str | None, imagenet: Path, tmp_path: Path) -> None:
    dataset = D3HRImageNet(tmp_path, 1, artifact=imagenet, subset=subset)
    for teacher in (ResNet18_Weights.IMAGENET1K_V1, ImageNetInfo("imagenet-1k").label_names()):
        assert torch.equal(check_teacher(dataset, teacher), dataset.class_labels)
    if subset is not None:
        assert check_teacher(dataset, dataset.wnids).tolist() == list(range(10))
        with pytest.raises(TeacherError, match="order"):
            check_teacher(dataset, dataset.wnids[::-1])


@pytest.mark.parametrize(
    "teacher",
    [
        SimpleNamespace(num_classes=3),
        _transformers(["LABEL_0", "LABEL_1", "LABEL_2"]),
        torch.nn.Identity(),
        SimpleNamespace(num_classes=3, pretrained_cfg={"label_names": ["cat", "ant"]}),  # fine-tuned
    ],
)
def test_what_carries_no_names_is_counted(
    teacher: Any, tiny_artifact: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path, 1)
    assert check_teacher(dataset, teacher).tolist() == [0, 1, 2]
    assert "carries no label names" in caplog.text
    with pytest.raises(TeacherError, match="has 1000 classes"):
        check_teacher(dataset, SimpleNamespace(num_classes=1000))
