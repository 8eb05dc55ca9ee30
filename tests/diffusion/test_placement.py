"""Parts of a model that take turns on a device: imitated by a CPU that goes by another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d3hr_datasets import D3HRDataset, InversionConfig
from d3hr_datasets.build import ModelOptions
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.placement import Placement
from d3hr_datasets.errors import ConfigError
from tests.cli.test_cli import succeed
from tests.support.tiny import tiny_model, tiny_pipeline

GPU = torch.device("cpu", 0)  # computes, and is not the `HOST` that has no number


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where parts of models go, in order, and have them there when they compute."""
    seen: list[str] = []
    moved = torch.nn.Module.to

    def to(self: torch.nn.Module, device: Any, **options: Any) -> torch.nn.Module:
        name = {"DiTTransformer2DModel": "network", "AutoencoderKL": "vae"}.get(type(self).__name__)
        if name is not None and not options:
            seen.append(f"{name} {'in' if device == GPU else 'out'}")
        return moved(self, device, **options)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    return seen


def _offloaded(model: LatentDiffusion) -> LatentDiffusion:
    model.placement.device, model.placement.is_offloaded = GPU, True

    def check(part: torch.nn.Module, *_: Any) -> None:
        assert model.placement._there is part

    for part in (model.network, model.vae.encoder, model.vae.decoder):
        whole = model.network if part is model.network else model.vae
        part.register_forward_pre_hook(lambda *_, whole=whole: check(whole))
    return model


def _pixels(dataset: D3HRDataset) -> Any:
    return np.stack([np.asarray(dataset[index][0]) for index in range(len(dataset))])


def test_parts_are_moved_once_for_many_batches_and_images_are_the_same(
    tiny_artifact: Path, tmp_path: Path, moves: list[str]
) -> None:
    plain = D3HRDataset(tiny_artifact, tmp_path / "plain", 4, device="cpu")
    plain.materialize(2, progress=False)
    dataset = D3HRDataset(tiny_artifact, tmp_path / "offloaded", 4, device="cpu")
    _offloaded(dataset.model())
    del moves[:]
    dataset.materialize(2, progress=False)
    assert moves == ["vae out", "network in", "network out", "vae in"]  # of six batches
    assert np.array_equal(_pixels(dataset), _pixels(plain))
    assert dataset.image_folder.name == plain.image_folder.name


def test_a_build_moves_parts_when_they_are_used(moves: list[str]) -> None:
    model, plain = _offloaded(tiny_model()), tiny_model()
    del moves[:]
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels, config = torch.arange(3), InversionConfig((400,), num_inference_steps=10)
    for _ in range(2):
        latents = model.encode(images)
        inverted = model.invert(model.encode(images), labels, config)[400]
    assert moves == ["network out", "vae in", "vae out", "network in"] * 2
    assert torch.equal(latents, plain.encode(images))
    assert torch.equal(inverted, plain.invert(latents, labels, config)[400])


def test_on_the_cpu_nothing_moves(moves: list[str]) -> None:
    parts = tiny_pipeline()
    model = LatentDiffusion(parts.transformer, parts.vae, parts.scheduler, device="cpu", cpu_offload=True)
    del moves[:]
    model.decode(torch.zeros(1, *model.latent_shape))
    assert moves == [] and not model.placement.is_offloaded


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return, for each model that is loaded, whether its parts were to take turns."""
    found: list[bool] = []
    begin = Placement.__init__

    def note(self: Placement, network: Any, vae: Any, device: Any, cpu_offload: bool = False) -> None:
        found.append(cpu_offload)
        begin(self, network, vae, device, cpu_offload)

    monkeypatch.setattr(Placement, "__init__", note)
    return found


def test_whoever_asks_for_it_gets_it(tiny_artifact: Path, tmp_path: Path, asked: list[bool]) -> None:
    D3HRDataset(tiny_artifact, tmp_path, 1, device="cpu", cpu_offload=True).model()
    given = ("materialize", "--artifact", tiny_artifact, "--ipc", 1, "--root", tmp_path, "--device", "cpu")
    succeed(*given, "--cpu-offload")
    succeed(*given, "--seed", 1)
    assert asked == [True, True, False]
    for bad in (1, "no"):
        with pytest.raises(ConfigError, match="cpu_offload must be True or False"):
            D3HRDataset(tiny_artifact, tmp_path, 1, cpu_offload=bad)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="cpu_offload must be True or False"):
            ModelOptions(cpu_offload=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("cpu_offload", [False, True])
def test_a_device_that_is_too_small_for_the_model_says_what_helps(
    cpu_offload: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    parts = tiny_pipeline()
    monkeypatch.setattr(parts.vae, "to", full)
    with pytest.raises(ConfigError, match=r"does not fit into the memory of 'cpu'; .*bfloat16") as error:
        Placement(parts.transformer, parts.vae, "cpu", cpu_offload)
    assert ("cpu_offload=True" in str(error.value)) != cpu_offload
