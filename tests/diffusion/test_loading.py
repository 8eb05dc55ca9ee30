"""A model comes from its folder or repository whole, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
)
from safetensors.torch import load_file, save_file

from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.noise_schedule import BetaSchedule
from d3hr_datasets.errors import ConfigError, ModelFormatError, ModelNotFoundError
from d3hr_datasets.io.untrusted_files import check_model_file
from tests.support.model_inputs import DECODE, labels_in_turn, random_images, random_latents
from tests.support.tampering import truncate
from tests.support.tiny import tiny_pipeline

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"

VAE = "vae/diffusion_pytorch_model.safetensors"


def test_fingerprint_survives_the_disk(saved: Path, model: LatentDiffusion) -> None:
    assert (
        LatentDiffusion.from_pretrained(saved, device="cpu").inversion_fingerprint
        == model.inversion_fingerprint
    )


def test_saved_model_is_the_same_model(saved: Path, model: LatentDiffusion) -> None:
    loaded = LatentDiffusion.from_pretrained(saved, device="cpu")
    assert loaded.num_classes == 3 and loaded.latent_shape == (3, 4, 4)
    assert torch.equal(loaded.encode(random_images()), model.encode(random_images()))
    denoised = loaded.denoise(random_latents(), labels_in_turn(2), DECODE)
    assert torch.equal(denoised, model.denoise(random_latents(), labels_in_turn(2), DECODE))
    assert torch.equal(loaded.decode(denoised), model.decode(denoised))


def test_model_is_loaded_from_a_folder_given_as_text(saved: Path) -> None:
    assert LatentDiffusion.from_pretrained(str(saved), device="cpu").num_classes == 3


def test_model_in_half_precision_gives_float32(saved: Path) -> None:
    model = LatentDiffusion.from_pretrained(saved, device="cpu", torch_dtype=torch.bfloat16)
    assert model.network.dtype == model.vae.dtype == torch.bfloat16
    latents = model.encode(random_images())
    denoised = model.denoise(latents, labels_in_turn(2), DECODE)
    assert latents.dtype == denoised.dtype == model.decode(denoised).dtype == torch.float32


def test_loading_does_not_move_the_global_generator(saved: Path) -> None:
    before = torch.get_rng_state()
    LatentDiffusion.from_pretrained(saved, device="cpu")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("transformer/config.json", "transformer"),
        (TRANSFORMER, "diffusion_pytorch_model"),
        ("vae/config.json", "vae"),
        (VAE, "diffusion_pytorch_model"),
        ("scheduler/scheduler_config.json", "scheduler"),
        ("vae", "vae"),
    ],
)
def test_missing_files_are_named(name: str, part: str, model_copy: Path) -> None:
    path = model_copy / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ModelNotFoundError, match=part) as caught:
        LatentDiffusion.from_pretrained(model_copy, device="cpu")
    assert isinstance(caught.value, FileNotFoundError)


def test_schedulers_with_neither_betas_nor_flow_matching_are_refused(model_copy: Path) -> None:
    EDMEulerScheduler().save_pretrained(model_copy / "scheduler")
    with pytest.raises(ModelFormatError, match=r"is EDMEulerScheduler, .*DDIMScheduler.*FlowMatchEuler"):
        LatentDiffusion.from_pretrained(model_copy, device="cpu")


@pytest.mark.parametrize("kind", [DDPMScheduler, DPMSolverMultistepScheduler])  # the latter writes -Infinity
def test_schedulers_that_share_the_betas_are_read_as_ddim(kind: Any, saved: Path, model_copy: Path) -> None:
    before = LatentDiffusion.from_pretrained(saved, device="cpu").schedule
    assert isinstance(before, BetaSchedule)
    kind.from_config(before.scheduler.config).save_pretrained(model_copy / "scheduler")
    check_model_file(model_copy / "scheduler" / "scheduler_config.json")  # what an artifact asks of it
    after = LatentDiffusion.from_pretrained(model_copy, device="cpu").schedule
    assert isinstance(after, BetaSchedule) and type(after.scheduler) is DDIMScheduler
    assert after.fingerprint_bytes() == before.fingerprint_bytes()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        LatentDiffusion.from_pretrained(tmp_path / "nowhere", device="cpu")


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument is deprecated:UserWarning")
def test_missing_repository_is_named() -> None:
    with pytest.raises(ModelNotFoundError, match="nobody/nothing"):
        LatentDiffusion.from_pretrained(
            "nobody/nothing", revision="main", device="cpu", local_files_only=True
        )


def _to_pickles(model: Path) -> None:
    for name in (TRANSFORMER, VAE):
        torch.save(load_file(model / name), (model / name).with_suffix(".bin"))
        (model / name).unlink()


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument is deprecated:UserWarning")
def test_pickles_of_a_repository_are_read_with_a_warning(
    model_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = tmp_path / "hub" / "models--org--model" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / ("c" * 40)).symlink_to(model_copy)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def load() -> str:
        return LatentDiffusion.from_pretrained(
            "org/model", revision="c" * 40, device="cpu"
        ).inversion_fingerprint

    expected = load()
    assert not caplog.text
    _to_pickles(model_copy)
    assert load() == expected and caplog.text.count("weights_only=True") == 2


def test_pickles_of_a_folder_are_refused(model_copy: Path) -> None:
    _to_pickles(model_copy)
    with pytest.raises(ModelNotFoundError, match=r"safetensors is missing"):
        LatentDiffusion.from_pretrained(model_copy, device="cpu")


def test_folder_of_the_same_name_is_no_revision(model_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_copy.parent.parent)
    name = f"{model_copy.parent.name}/{model_copy.name}"
    LatentDiffusion.from_pretrained(name, device="cpu")
    with pytest.raises(ModelNotFoundError, match="hides it"):
        LatentDiffusion.from_pretrained(name, revision="c" * 40, device="cpu", local_files_only=True)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("name", [TRANSFORMER, VAE])
def test_truncated_weights_are_refused(name: str, share: float, model_copy: Path) -> None:
    truncate(model_copy / name, share)
    with pytest.raises(ModelFormatError, match="damaged"):
        LatentDiffusion.from_pretrained(model_copy, device="cpu")


@pytest.mark.parametrize(
    "name", ["transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"]
)
def test_truncated_settings_are_refused(name: str, model_copy: Path) -> None:
    truncate(model_copy / name)
    with pytest.raises(ModelFormatError, match="damaged"):
        LatentDiffusion.from_pretrained(model_copy, device="cpu")


@pytest.mark.parametrize("name", [TRANSFORMER, VAE])
def test_incomplete_weights_are_refused(name: str, model_copy: Path) -> None:
    tensors = {key: tensor.clone() for key, tensor in load_file(model_copy / name).items()}
    del tensors[sorted(tensors)[3]]
    (model_copy / name).unlink()
    save_file(tensors, model_copy / name, metadata={"format": "pt"})
    with pytest.raises(ModelFormatError, match="lack"):
        LatentDiffusion.from_pretrained(model_copy, device="cpu")


def test_weights_of_other_settings_are_refused(model_copy: Path) -> None:
    path = model_copy / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_embeds_ada_norm": 10}))
    with pytest.raises(ModelFormatError, match="embedding_table"):
        LatentDiffusion.from_pretrained(model_copy, device="cpu")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor = 0"),
        ("vae/config.json", {"scaling_factor": "x"}, "scaling_factor = 'x'"),
        ("vae/config.json", {"scaling_factor": None}, "scaling_factor = None"),
        ("vae/config.json", {"shift_factor": "y"}, "shift_factor = 'y'"),
        ("vae/config.json", {"layers_per_block": 0}, "layers_per_block = 0"),
        ("transformer/config.json", {"num_layers": -1}, "num_layers = -1"),
        ("transformer/config.json", {"num_layers": 1}, "has no place for the weights"),
        ("scheduler/scheduler_config.json", {"beta_end": -5}, "betas"),
        ("scheduler/scheduler_config.json", {"beta_start": 2.0, "beta_end": 3.0}, "betas"),
        ("scheduler/scheduler_config.json", {"prediction_type": "x"}, "predicts 'x'.*'sample'"),
    ],
)
def test_settings_that_inversion_cannot_use_are_refused(
    part: str, change: dict[str, Any], message: str, model_copy: Path
) -> None:
    path = model_copy / part
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelFormatError, match=message):
        LatentDiffusion.from_pretrained(model_copy, device="cpu")


@pytest.mark.parametrize("device", ["foo", "cuda:7"])
def test_devices_that_are_not_there_are_refused(device: str, saved: Path) -> None:
    if device != "foo" and torch.cuda.is_available():
        pytest.skip("there may be eight")
    with pytest.raises(ConfigError, match=rf"'{device}' cannot be used: .*'cpu'"):
        LatentDiffusion.from_pretrained(saved, device=device)


def test_transformer_and_vae_must_fit_each_other() -> None:
    pipeline = tiny_pipeline()
    pipeline.transformer.register_to_config(in_channels=4)
    with pytest.raises(ModelFormatError, match=r"4 latent channels.*3"):
        LatentDiffusion(pipeline.transformer, pipeline.vae, pipeline.scheduler, device="cpu")
