"""Which device computes, and that a device without float64 (Apple's MPS) can do it all. MPS is never run."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from torch import nn

from d3hr_datasets import D3HRDataset, InversionConfig, RunningMoments, processes
from d3hr_datasets.dataset.batches import BatchSize
from d3hr_datasets.dataset.generation_progress import GenerationProgress
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import CacheMissError
from d3hr_datasets.processes import check_may_generate, generation_device
from d3hr_datasets.students.convnet import ConvNet
from d3hr_datasets.students.evaluation import evaluate, teacher_outputs
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.soft_labels import SoftLabels
from d3hr_datasets.students.teachers import Teacher
from d3hr_datasets.students.training import make_optimizer, train_student
from d3hr_datasets.students.views import TensorImages, normalized
from tests.support.tiny import tiny_pipeline
from tests.support.tiny_students import CLASSES, protocol
from tests.support.without_float64 import DEVICE, WithoutFloat64


def pretend(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_cuda_comes_before_mps_and_mps_before_the_cpu(
    cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, cuda=cuda, mps=mps)
    assert generation_device(None) == torch.device(expected)
    assert generation_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "0")  # of MPS there is one only
    assert generation_device(None).type == expected


def test_students_are_trained_on_mps_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")  # accelerate sets it
    for mps, expected in ((True, "mps"), (False, "cpu")):
        pretend(monkeypatch, cuda=False, mps=mps)
        assert PartialState.default_device.fget(object()).type == expected


@pytest.mark.parametrize("device", ["mps", "cuda", "cpu", None])
def test_forked_workers_cannot_use_a_gpu(device: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=False, mps=True)
    check_may_generate(device, "class 'ant'")  # not in a worker
    monkeypatch.setattr(processes, "get_worker_info", object)
    monkeypatch.setattr(processes, "_is_forked", lambda: True)
    if device == "cpu":
        check_may_generate(device, "class 'ant'")
        return
    named = "CUDA" if device == "cuda" else "MPS"
    with pytest.raises(CacheMissError, match=rf"'ant' is not .* cannot use {named} .*materialize\(\)"):
        check_may_generate(device, "class 'ant'")
    monkeypatch.setattr(processes, "_is_forked", lambda: False)
    check_may_generate(device, "class 'ant'")


def test_the_device_of_the_tests_has_no_float64() -> None:
    with WithoutFloat64():
        values = torch.ones(3).to(DEVICE)
        assert values.device == DEVICE and (values + 1).sum().item() == 6
        for convert in (values.double, lambda: values.to("cpu", torch.float64)):
            with pytest.raises(TypeError, match="no float64"):
                convert()
        with pytest.raises(TypeError, match="no float64"):
            torch.zeros(2, dtype=torch.float64, device=DEVICE)
        assert values.cpu().double().sum() == 3


def models() -> tuple[LatentDiffusion, LatentDiffusion]:
    """Return the tiny model on the CPU and on the device without float64, entered before."""
    parts = [
        (pipeline.transformer, pipeline.vae, pipeline.scheduler)
        for pipeline in (tiny_pipeline(), tiny_pipeline())
    ]
    return LatentDiffusion(*parts[0], device="cpu"), LatentDiffusion(*parts[1], device=DEVICE)


def test_images_are_the_same_without_float64(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path, 2, device="cpu")
    nobody = GenerationProgress(4, shown=False)
    with WithoutFloat64():
        here, there = models()
        made = [
            dict(dataset._generator.generate(model, [0, 2], BatchSize(4, model.device), tmp_path, nobody))
            for model in (here, there)
        ]
    assert {next(there.network.parameters()).device, there.device} == {DEVICE}
    for label in (0, 2):
        arrays = [[np.asarray(image).astype(int) for image in group[label]] for group in made]
        assert np.abs(np.array(arrays[0]) - np.array(arrays[1])).max() <= 1  # a grey level, by rounding


@pytest.mark.parametrize("method", ["ddim", "fixed_point"])
def test_moments_are_the_same_without_float64(method: Any) -> None:
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.tensor([0, 1, 1])
    config = InversionConfig(timesteps=(-1, 200), num_inference_steps=10, method=method)
    found = []
    with WithoutFloat64():
        for model in models():
            generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
            inverted = model.invert(model.encode(images, generators), labels, config)
            moments = RunningMoments(3, model.latent_shape)
            moments.update(inverted[200], labels)
            found.append(moments)
    assert inverted[200].device == DEVICE and found[0].mean.dtype == torch.float64
    for name in ("mean", "squares"):
        torch.testing.assert_close(getattr(found[0], name), getattr(found[1], name), atol=1e-5, rtol=1e-4)


class OnDevice:
    """What is used of an accelerator, on the device without float64: a process has one real accelerator."""

    def __init__(self, settings: Protocol) -> None:
        self.settings = settings

    device = DEVICE
    process_index, num_processes = 0, 1

    def autocast(self, *_: Any, **__: Any) -> Any:
        return contextlib.nullcontext()

    def prepare(self, model: nn.Module, optimizer: Any, **_: Any) -> Any:
        return model.to(DEVICE), make_optimizer(self.settings, model)

    def backward(self, loss: torch.Tensor, **_: Any) -> None:
        loss.backward()

    def unwrap_model(self, model: nn.Module, *_: Any, **__: Any) -> nn.Module:
        return model

    def reduce(self, tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return tensor


@pytest.mark.parametrize(
    "changes",
    [
        {"dsa": True, "epochs": 12},
        {"labels": "soft", "cutmix": 1.0, "optimizer": "adamw"},
        {"labels": "stored", "cutmix": 1.0, "flip": True},
        {"cutmix": 1.0, "label_smoothing": 0.1},
    ],
    ids=["dsa", "soft", "stored", "cutmix"],
)
def test_students_learn_without_float64(changes: dict[str, Any]) -> None:
    settings = protocol(**changes)
    pixels = torch.randint(256, (6, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = TensorImages(pixels, torch.arange(6) % 3, CLASSES)
    network = ConvNet(3, 1, 12, width=4)
    network.pretrained_cfg = {"mean": (0.4,), "std": (0.2,)}  # type: ignore[assignment]
    teacher, losses = Teacher(network, [1, 2, 0], "teacher"), []
    labels = SoftLabels.from_logits(torch.randn(6, 3), CLASSES, "teacher", "digest")
    accelerator: Any = OnDevice(settings)
    with WithoutFloat64():
        student = train_student(
            settings,
            images,
            3,
            teacher=teacher if settings.labels == "soft" else None,
            soft_labels=labels if settings.labels == "stored" else None,
            accelerator=accelerator,
            on_epoch=lambda report: losses.append(report.loss),
        )
        accuracy = evaluate(normalized(settings, student), settings, images, accelerator)
        outputs = teacher_outputs(teacher, settings, images)
    assert len(losses) == settings.epochs and all(map(math.isfinite, losses))
    assert {parameter.device for parameter in student.parameters()} == {DEVICE}
    assert 0 <= accuracy["top1"] <= 100 and outputs.shape == (6, 3) and outputs.device.type == "cpu"


def test_the_generator_of_mps_is_restored_after_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from d3hr_datasets.students.training import _seeded

    states = ["the user's"]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: states[-1])
    monkeypatch.setattr(torch.mps, "set_rng_state", states.append)
    with _seeded(3, torch.device("mps")):
        states.append("the training's")
    assert states[-1] == "the user's"
    with _seeded(3, torch.device("cpu")):
        pass
    assert len(states) == 3
