"""The training of a student: reproducible, resumable, and what its losses are."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.students.losses import soft_label_loss
from d3hr_datasets.students.models import create_student
from d3hr_datasets.students.soft_labels import SoftLabels
from d3hr_datasets.students.teachers import load_teacher
from d3hr_datasets.students.training import EpochReport, make_optimizer, train_student
from d3hr_datasets.students.views import (
    TensorImages,
)
from tests.support.tiny_students import CLASSES, protocol


def test_the_rate_of_a_single_epoch_rises_and_ends_near_zero(images: TensorImages) -> None:
    rates: list[float] = []
    reports: list[EpochReport] = []
    settings = protocol(epochs=1, batch_size=1, schedule="one_cycle", milestones=[])
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    try:
        train_student(settings, images, 3, on_epoch=reports.append)
    finally:
        hook.remove()
    assert rates == [0.05 * settings.learning_rate_factor(step / 10) for step in range(10)]
    assert rates[0] < rates[1] < max(rates) and rates[-1] == reports[0].learning_rate < 0.01


def test_a_short_cycle_goes_on_where_it_was_interrupted(images: TensorImages) -> None:
    settings = protocol(epochs=3, schedule="one_cycle", milestones=[])
    states: list[dict[str, Any]] = []
    whole = train_student(settings, images, 3, on_epoch=lambda r: states.append(copy.deepcopy(r.state())))
    resumed = train_student(settings, images, 3, state=states[0])
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weight_decay_leaves_vectors_alone_where_asked() -> None:
    adamw = protocol(optimizer="adamw", decayed="matrices", weight_decay=0.01)
    model = create_student("convnet3", 3, 1, 12, {"width": 4})
    decayed, rest = make_optimizer(adamw, model).param_groups
    assert (decayed["weight_decay"], rest["weight_decay"], decayed["betas"]) == (0.01, 0.0, (0.9, 0.999))
    assert {p.dim() for p in decayed["params"]} == {2, 4} and {p.dim() for p in rest["params"]} == {1}


def test_a_student_learns_the_same_again_and_after_an_interruption(images: TensorImages) -> None:
    settings = protocol(
        epochs=12, flip=True, random_crop=1, cutmix=1.0, optimizer="adamw", learning_rate=0.02
    )
    states = []

    def keep(report: EpochReport) -> None:
        states.append(copy.deepcopy(report.state()))

    before = torch.random.get_rng_state()
    whole = train_student(settings, images, 3, seed=5, on_epoch=keep)
    assert torch.equal(torch.random.get_rng_state(), before)
    resumed = train_student(settings, images, 3, seed=5, state=states[4])
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    other_seed = train_student(dataclasses.replace(settings, epochs=1), images, 3, seed=6)
    assert not torch.equal(next(iter(other_seed.parameters())), states[0]["model"]["features.0.weight"])


def test_labels_and_teachers_go_together(images: TensorImages) -> None:
    with pytest.raises(ConfigError, match="teacher None do not go together"):
        train_student(protocol(labels="soft"), images, 3)
    with pytest.raises(ConfigError, match="need soft_labels"):
        train_student(protocol(labels="stored"), images, 3)


def test_a_loss_that_is_no_number_is_an_error(images: TensorImages) -> None:
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        train_student(protocol(learning_rate=1e30), images, 3)


def test_soft_label_loss_by_hand() -> None:
    logits, targets = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]]), [[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]
    expected = 0.0
    for row, target in zip(logits.tolist(), targets, strict=True):
        normalizer = math.log(sum(math.exp(value / 20) for value in row))
        expected += sum(p * (math.log(p) - (z / 20 - normalizer)) for p, z in zip(target, row, strict=True))
    loss = soft_label_loss(logits, torch.tensor(targets), protocol())
    assert loss.item() == pytest.approx(expected / 2, rel=1e-5)  # batch mean, without the factor 20^2


def test_a_student_follows_its_teacher(teacher_folder: Path, images: TensorImages) -> None:
    teacher = load_teacher(f"local-dir:{teacher_folder}", CLASSES)
    settings = protocol(epochs=40, labels="soft", temperature=1.0, optimizer="adamw", learning_rate=0.01)
    reports: list[EpochReport] = []
    train_student(settings, images, 3, teacher=teacher, on_epoch=reports.append)
    assert reports[-1].loss < 0.1 * reports[0].loss


def test_stored_labels_are_mixed_as_the_images_are(images: TensorImages) -> None:
    # Labels that are almost certain are hard labels: the loss is that of mixed hard labels, at temperature 1.
    certain = 30.0 * torch.nn.functional.one_hot(torch.tensor(images.targets), 3)
    labels = SoftLabels.from_logits(certain, CLASSES, "teacher", "digest")
    reports: list[EpochReport] = []
    for kind in ("hard", "stored"):
        settings = protocol(epochs=1, batch_size=10, labels=kind, temperature=1.0, cutmix=1.0)
        given = labels if kind == "stored" else None
        train_student(settings, images, 3, soft_labels=given, on_epoch=reports.append)
    # Cross entropy is KL plus the entropy of the targets, which mixing makes positive.
    assert 0 < reports[1].loss < reports[0].loss
