"""Accuracy on a test set."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from d3hr_datasets.students.evaluation import evaluate
from d3hr_datasets.students.models import create_student
from d3hr_datasets.students.training import train_student
from d3hr_datasets.students.views import (
    TensorImages,
    normalized,
)
from tests.support.tiny_students import CLASSES, protocol


def test_hard_labels_are_learned_and_scored(images: TensorImages) -> None:
    settings = protocol(epochs=25)
    model = train_student(settings, images, 3)
    assert evaluate(normalized(settings, model), settings, images, batch_size=4) == {"top1": 100, "top5": 100}
    wrong = TensorImages(images.images, (torch.tensor(images.targets) + 1) % 3, CLASSES)
    assert evaluate(normalized(settings, model), settings, wrong) == {"top1": 0, "top5": 100}


def test_evaluation_counts_every_image_once_over_processes(images: TensorImages) -> None:
    settings = protocol()

    class Share(Accelerator):  # type: ignore[misc]
        """One of two processes, whose `reduce` leaves its own sum."""

        rank = 0
        num_processes = 2

        @property
        def process_index(self) -> int:
            return self.rank

        def reduce(self, tensor: torch.Tensor, reduction: str = "mean", scale: float = 1.0) -> torch.Tensor:
            return tensor

    model = create_student("convnet3", 3, 1, 12, {"width": 4}).eval()
    shares = []
    for rank in range(2):
        accelerator = Share()
        accelerator.rank = rank
        shares.append(evaluate(normalized(settings, model), settings, images, accelerator)["top1"])
    assert sum(shares) == pytest.approx(evaluate(normalized(settings, model), settings, images)["top1"])
