"""Weights of images in the loss of a student: of hard and of soft labels, of plain and of mixed images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.students.accelerator import default_accelerator
from d3hr_datasets.students.losses import StudentLoss, soft_label_loss
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.soft_labels import SoftLabels
from d3hr_datasets.students.teachers import Teacher, load_teacher
from d3hr_datasets.students.training import EpochReport, train_student
from d3hr_datasets.students.views import Network, TensorImages, normalize
from tests.support.tiny_students import CLASSES, protocol

WEIGHTS = torch.tensor([0.0, 2.0, 0.5, 1.0, 3.0, 0.25, 1.0, 1.0, 1.0, 0.25])
INDEX = torch.tensor([4, 0, 2, 5])


def _student() -> Network:
    weight = torch.randn(144, 3, generator=torch.Generator().manual_seed(1))

    return lambda images: images.flatten(1) @ weight / 10


def _loss(
    settings: Protocol,
    images: TensorImages,
    weights: torch.Tensor | None,
    teacher: Teacher | None = None,
    soft_labels: SoftLabels | None = None,
) -> torch.Tensor:
    loss = StudentLoss(settings, 3, teacher, soft_labels, default_accelerator(), False, weights)
    views = images.images[INDEX].float() / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return loss(_student(), views, torch.tensor(images.targets)[INDEX], INDEX)


def _each(images: TensorImages, one: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return the weighted sum of the losses of the images of `INDEX`, each by itself, over their number."""
    views = normalize(protocol(), images.images[INDEX].float() / 255)
    logits = _student()(views)
    losses = [one(logits[row : row + 1], INDEX[row : row + 1]) for row in range(len(INDEX))]
    weighted = [weight * loss for weight, loss in zip(WEIGHTS[INDEX], losses, strict=True)]
    return torch.stack(weighted).sum() / len(INDEX)


def test_the_loss_of_hard_labels_is_weighted(images: TensorImages) -> None:
    targets = torch.tensor(images.targets)
    expected = _each(
        images, lambda logits, index: F.cross_entropy(logits, targets[index], label_smoothing=0.1)
    )
    torch.testing.assert_close(_loss(protocol(label_smoothing=0.1), images, WEIGHTS), expected)
    # Not over the sum of the batch's weights, which is 3.75 here.
    assert _loss(protocol(), images, 2 * WEIGHTS) == 2 * _loss(protocol(), images, WEIGHTS)


def test_the_loss_of_soft_labels_is_weighted(images: TensorImages, teacher_folder: Path) -> None:
    soft = protocol(labels="soft", temperature=4.0)
    teacher = load_teacher(f"local-dir:{teacher_folder}", CLASSES)
    wanted = (teacher(images.images.float() / 255) / 4.0).softmax(dim=1)
    expected = _each(images, lambda logits, index: soft_label_loss(logits, wanted[index], soft))
    torch.testing.assert_close(_loss(soft, images, WEIGHTS, teacher=teacher), expected)
    stored = protocol(labels="stored", temperature=4.0)
    labels = SoftLabels.from_logits(teacher(images.images.float() / 255), CLASSES, "teacher", "digest")
    kept = labels.probabilities(torch.arange(10), 4.0)
    expected = _each(images, lambda logits, index: soft_label_loss(logits, kept[index], stored))
    torch.testing.assert_close(_loss(stored, images, WEIGHTS, soft_labels=labels), expected)


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["hard", "stored"])
def test_equal_weights_change_nothing(kind: str, cutmix: float, images: TensorImages) -> None:
    labels = (
        SoftLabels.from_logits(torch.randn(10, 3), CLASSES, "teacher", "digest") if kind == "stored" else None
    )
    settings = protocol(labels=kind, cutmix=cutmix)
    plain = _loss(settings, images, None, soft_labels=labels)
    torch.testing.assert_close(_loss(settings, images, torch.ones(10), soft_labels=labels), plain)
    assert _loss(settings, images, WEIGHTS, soft_labels=labels) != plain


def test_a_mixed_image_has_the_mixed_weight(images: TensorImages) -> None:
    """A student that answers by the place in the batch, whatever it sees: only weights decide."""
    loss = StudentLoss(protocol(cutmix=1.0), 3, None, None, default_accelerator(), False, WEIGHTS)
    views = images.images[INDEX].float() / 255

    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 5.0, 0.0]])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = loss(lambda _: logits, views, torch.zeros(4, dtype=torch.int64), INDEX)
        torch.manual_seed(0)
        mixing = v2.CutMix(alpha=1.0, num_classes=4)(views, torch.arange(4))[1]
    each = F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64), reduction="none")
    assert ((mixing > 0) & (mixing < 1)).any()
    torch.testing.assert_close(found, (each * (mixing @ WEIGHTS[INDEX])).mean())


def test_an_image_of_no_weight_teaches_nothing(images: TensorImages) -> None:
    """Its label may be any: the student, and the losses on the way, are the same."""
    weights = torch.ones(10)
    weights[3] = 0
    mislabelled = TensorImages(images.images, torch.tensor(images.targets), CLASSES)
    mislabelled.targets[3] = (mislabelled.targets[3] + 1) % 3
    losses: list[list[float]] = []
    students = []
    for seen in (images, mislabelled):
        reports: list[EpochReport] = []
        students.append(train_student(protocol(), seen, 3, weights=weights, on_epoch=reports.append))
        losses.append([report.loss for report in reports])
    assert losses[0] == losses[1]
    for one, other in zip(*(student.parameters() for student in students), strict=True):
        assert torch.equal(one, other)
    reports = []
    train_student(protocol(), mislabelled, 3, on_epoch=reports.append)
    assert [report.loss for report in reports] != losses[0]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (torch.ones(9), r"shape \(9,\); accepted: one for each of the 10 images"),
        (torch.ones(10, 1), r"shape \(10, 1\)"),
        (torch.full((10,), -1.0), "finite numbers of at least 0"),
        (torch.full((10,), torch.nan), "finite numbers of at least 0"),
    ],
)
def test_what_are_no_weights_is_refused(weights: torch.Tensor, said: str, images: TensorImages) -> None:
    with pytest.raises(ConfigError, match=said):
        train_student(protocol(), images, 3, weights=weights)
