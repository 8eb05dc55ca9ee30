"""Students and teachers in mixed precision: both multiply in it, and the loss is of full precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets.students.losses import StudentLoss
from d3hr_datasets.students.teachers import load_teacher
from d3hr_datasets.students.views import TensorImages
from tests.support.tiny_students import CLASSES, protocol


class _Half:
    """What the loss asks an accelerator for. Of accelerate's there is one precision in a process."""

    device = torch.device("cpu")

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("torch_compile", [False, True])
def test_student_and_teacher_run_in_it(
    torch_compile: bool, images: TensorImages, teacher_folder: Path
) -> None:
    views, labels = images.images.float() / 255, torch.tensor(images.targets)
    weight = torch.randn(144, 3, generator=torch.Generator().manual_seed(1)) / 10
    seen: list[torch.dtype] = []

    def student(inputs: torch.Tensor) -> torch.Tensor:
        logits = inputs.flatten(1) @ weight
        seen.append(logits.dtype)
        return logits

    teacher = load_teacher(f"local-dir:{teacher_folder}", CLASSES)
    hooks = [
        module.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
        for module in teacher.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    accelerator: Any = _Half()
    settings = protocol(labels="soft", temperature=4.0)
    half = StudentLoss(settings, 3, teacher, None, accelerator, torch_compile)
    loss = half(student, views, labels, torch.arange(10))
    assert seen[:2] == [torch.bfloat16, torch.bfloat16] and loss.dtype == torch.float32
    accelerator.autocast = torch.no_grad
    whole = StudentLoss(settings, 3, teacher, None, accelerator, False)
    exact = whole(student, views, labels, torch.arange(10))
    assert seen[-2:] == [torch.float32, torch.float32]
    assert loss.item() == pytest.approx(exact.item(), rel=0.05) and loss.item() != exact.item()
    for hook in hooks:
        hook.remove()
