"""torch.compile, for those who ask for it: the same images, and a clear word where it cannot work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from d3hr_datasets import D3HRDataset, DecodeConfig
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.students.models import create_student
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.teachers import Teacher
from d3hr_datasets.students.training import train_student
from d3hr_datasets.students.views import TensorImages

needs_compiler = pytest.mark.skipif(
    "CI" not in os.environ and not shutil.which(os.environ.get("CXX", "g++")),
    reason="there is no C++ compiler",
)


def _pixels(dataset: D3HRDataset) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.stack([np.asarray(dataset[index][0], dtype=np.int64) for index in range(len(dataset))])


@needs_compiler
def test_compiling_changes_no_image_by_more_than_a_grey_level(tiny_artifact: Path, tmp_path: Path) -> None:
    plain = D3HRDataset(tiny_artifact, tmp_path / "plain", 2, device="cpu")
    compiled = D3HRDataset(tiny_artifact, tmp_path / "compiled", 2, device="cpu")
    before = torch.random.get_rng_state()
    compiled.materialize(progress=False, torch_compile=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert compiled.model().network._compiled_call_impl is not None
    assert np.abs(_pixels(compiled) - _pixels(plain)).max() <= 1


def test_one_network_is_compiled_for_batches_of_all_sizes(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 4 and 2, which guidance doubles in some of the steps. Counts graphs, and compiles none."""
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_(self, backend="eager"))
    monkeypatch.setenv("CXX", "true")  # a compiler to be found
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    decode = DecodeConfig(400, 10, 2.0, guidance_interval=(100, 300))
    dataset = D3HRDataset(tiny_artifact, tmp_path, 2, device="cpu", decode=decode)
    dataset.materialize(batch_size=4, progress=False, torch_compile=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_compiling_without_a_compiler_is_refused(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clang++").write_text("#!/bin/sh\n")  # which PyTorch does not look for
    (tmp_path / "clang++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    dataset = D3HRDataset(tiny_artifact, tmp_path / "root", 2, device="cpu")
    with pytest.raises(ConfigError, match=r"install g\+\+"):
        dataset.materialize(progress=False, torch_compile=True)
    assert not dataset.image_folder.exists()
    dataset.materialize(progress=False)  # nothing stays in the way


PROTOCOL = Protocol(
    student="convnet3",
    student_args={"width": 4},
    image_size=12,
    channels=1,
    mean=[0.5],
    std=[0.25],
    epochs=2,
    batch_size=3,
    optimizer="sgd",
    learning_rate=0.05,
    weight_decay=0.0,
    schedule="one_cycle",
    labels="soft",
)
IMAGES = TensorImages(
    torch.arange(6 * 144, dtype=torch.uint8).reshape(6, 1, 12, 12), torch.arange(6) % 3, list("abc")
)


def _teacher() -> Teacher:
    model = create_student("convnet3", 3, 1, 12, {"width": 4})
    model.pretrained_cfg = {"mean": (0.5,), "std": (0.25,)}  # type: ignore[assignment]
    return Teacher(model, [0, 1, 2], "teacher")


def test_students_and_teachers_are_compiled_for_training(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    teacher = _teacher()

    def compiled(network: torch.nn.Module, **options: object) -> object:
        assert options == {"dynamic": False}  # a network of its own for each size of a batch

        def call(inputs: torch.Tensor) -> object:
            batches.append(len(inputs))
            return network(inputs)

        return call

    plain = train_student(PROTOCOL, IMAGES, 3, teacher=teacher)
    monkeypatch.setenv("CXX", "true")  # a compiler to be found
    monkeypatch.setattr(torch, "compile", compiled)
    student = train_student(PROTOCOL, IMAGES, 3, teacher=teacher, torch_compile=True)
    assert batches == [3] * 8  # student and teacher, two batches in each of two epochs
    for name, value in plain.state_dict().items():
        assert torch.equal(student.state_dict()[name], value)


def test_students_are_not_compiled_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"install g\+\+"):
        train_student(
            PROTOCOL, IMAGES, 3, teacher=_teacher(), accelerator=Accelerator(cpu=True), torch_compile=True
        )
