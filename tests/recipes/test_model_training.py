"""The VAE and the DiT train on small images, resume, and save what is read elsewhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from d3hr_datasets.build.model_facts import image_frame, model_classes
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.students.convnet import ConvNet
from d3hr_datasets.students.models import create_student
from d3hr_datasets.training.diffusion import train_diffusion
from recipes.train import vae as train_vae
from recipes.train.perceptual import PerceptualDistance
from tests.recipes.tiny_trainings import dit_settings, vae_settings


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Make the next training stop as if by Ctrl-C when it logs `step`."""
    log = RunFolder.log

    def stop(self: RunFolder, **metrics: Any) -> None:
        if metrics["step"] == step:
            raise KeyboardInterrupt
        log(self, **metrics)

    monkeypatch.setattr(RunFolder, "log", stop)


def test_a_model_trains_on_any_image_folder_and_resumes(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = vae_settings(image_folder, tmp_path / "vae")
    train_vae.train(whole)
    parts = dataclasses.replace(whole, output=str(tmp_path / "vae-parts"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 8)
        train_vae.train(parts)
    train_vae.train(parts)
    weights, again = (
        load_file(Path(s.output) / "vae" / "diffusion_pytorch_model.safetensors") for s in (whole, parts)
    )
    for name, tensor in weights.items():
        torch.testing.assert_close(again[name], tensor)
    assert (tmp_path / "vae" / "reconstructions.png").is_file()
    assert len((tmp_path / "vae" / "metrics.csv").read_text().splitlines()) == 1 + 12

    settings = dit_settings(image_folder, tmp_path / "dit", tmp_path / "vae" / "vae")
    train_diffusion(settings)
    model = LatentDiffusion.from_pretrained(tmp_path / "dit" / "model", device="cpu")
    assert (model.num_classes, model.latent_shape, model.image_channels) == (3, (2, 4, 4), 3)
    known = model_classes(str(tmp_path / "dit" / "model"), None)
    assert known is not None
    assert known.names == ("blue", "green", "red")  # so that `d3hr build` need not be told
    assert image_frame(str(tmp_path / "dit" / "model"), model.sample_size) == (1, None)
    assert (tmp_path / "dit" / "samples-12.png").is_file()
    resumed = dataclasses.replace(settings, output=str(tmp_path / "dit-parts"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 7)
        train_diffusion(resumed)
    train_diffusion(resumed)
    file = Path("model/transformer/diffusion_pytorch_model.safetensors")
    weights, again = (load_file(Path(s.output) / file) for s in (settings, resumed))
    for key, tensor in weights.items():
        torch.testing.assert_close(again[key], tensor)


def test_a_long_dit_training_validates_and_may_be_told_its_end_late(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_vae.train(vae_settings(image_folder, tmp_path / "vae"))
    vae = tmp_path / "vae" / "vae"
    settings = dit_settings(
        image_folder,
        tmp_path / "dit",
        vae,
        split="train",
        validation_split="held-out",
        schedule="warmup_stable_decay",
        decay_share=0.25,
        minutes_between_samples=0.0,
    )
    train_diffusion(settings)
    rows = (tmp_path / "dit" / "validation.csv").read_text().splitlines()
    assert rows[0] == "step,epoch,mse"
    assert [row.split(",")[0] for row in rows[1:]] == [*map(str, range(1, 11)), "10"]
    assert len({row.split(",")[2] for row in rows[1:]}) == 10  # of weights that change, on the same noise
    longer = dataclasses.replace(settings, output=str(tmp_path / "longer"), epochs=50)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 7)
        train_diffusion(longer)
    train_diffusion(dataclasses.replace(longer, epochs=2))
    file = Path("model/transformer/diffusion_pytorch_model.safetensors")
    weights, again = (load_file(Path(s.output) / file) for s in (settings, longer))
    for key, tensor in weights.items():
        torch.testing.assert_close(again[key], tensor)


def test_a_decoder_trains_on_while_the_latents_stay(image_folder: Path, tmp_path: Path) -> None:
    whole = vae_settings(image_folder, tmp_path / "vae")
    train_vae.train(whole)
    base = tmp_path / "vae" / "vae"
    train_vae.train(
        vae_settings(
            image_folder,
            tmp_path / "decoder",
            decoder_of=str(base),
            perceptual_weight=0.1,
            minutes_between_checkpoints=60.0,
        )
    )
    before, after = (
        load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
        for folder in (tmp_path / "vae", tmp_path / "decoder")
    )
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}
    configs = [json.loads((tmp_path / run / "vae" / "config.json").read_text()) for run in ("vae", "decoder")]
    assert configs[0]["scaling_factor"] == configs[1]["scaling_factor"]


def test_the_perceptual_distance_is_of_features_and_zero_for_the_same_images() -> None:
    torch.manual_seed(0)
    network = create_student("convnet3", 3, 1, 16, {"width": 4})
    assert isinstance(network, ConvNet)
    distance = PerceptualDistance(network)
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    assert distance(images, images) == 0
    assert distance(images, images.flip(-1)) > 1e-3
    assert distance(images, images + 0.01) < distance(images, images.flip(-1))


def test_a_run_refuses_other_settings(image_folder: Path, tmp_path: Path) -> None:
    settings = vae_settings(image_folder, tmp_path / "run")
    RunFolder(settings.output, settings)
    RunFolder(settings.output, dataclasses.replace(settings, epochs=5))
    with pytest.raises(ConfigError, match="learning_rate"):
        RunFolder(settings.output, dataclasses.replace(settings, learning_rate=0.5))


def test_a_run_of_before_there_was_a_setting_goes_on(tmp_path: Path) -> None:
    """It had what is the default now, also where that is made anew each time, as an empty mapping."""

    @dataclasses.dataclass
    class Before:
        epochs: int = 1

    @dataclasses.dataclass
    class Now(Before):
        decode: dict[str, int] = dataclasses.field(default_factory=dict)

    RunFolder(tmp_path / "run", Before())
    RunFolder(tmp_path / "run", Now())
    with pytest.raises(ConfigError, match="decode"):
        RunFolder(tmp_path / "run", Now(decode={"num_steps": 3}))
