""""""

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
    FlowMatchEulerDiscreteScheduler,
)
from safetensors.torch import load_file, save_file

from d3hr_datasets import DecodeConfig, InversionConfig
from d3hr_datasets.diffusion.latent_diffusion import CHUNK, LatentDiffusion
from d3hr_datasets.errors import ConfigError, ModelFormatError, ModelNotFoundError
from d3hr_datasets.io.foreign import check_model_file
from tests.support.tampering import truncate
from tests.support.tiny import tiny_model, tiny_pipeline

DECODE = DecodeConfig(timestep=400, num_inference_steps=10, guidance_scale=2.0)
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tiny_model()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def model_copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def _latents(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(count))


def _images(count: int = 2, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(count)) * 2 - 1


def _labels(count: int) -> torch.Tensor:
    return torch.arange(count) % 3


class Asked:
    """Notes the timesteps and class labels that a model is asked for."""

    def __init__(self, model: LatentDiffusion) -> None:
        self.timesteps: list[int] = []
        self.labels: list[list[int]] = []
        self.handle = model.transformer.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: Any, args: Any, kwargs: dict[str, torch.Tensor]) -> None:
        self.timesteps.append(int(kwargs["timestep"][0]))
        self.labels.append(kwargs["class_labels"].tolist())

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *args: object) -> None:
        self.handle.remove()


@pytest.mark.parametrize("learned_sigma", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_latents_keep_their_shapes(channels: int, learned_sigma: bool) -> None:
    model = tiny_model(channels=channels, learned_sigma=learned_sigma)
    assert model.image_channels == channels
    assert model.latent_shape == (3, 4, 4) and model.sample_size == 16
    latents = model.encode(_images(2, channels))
    assert latents.shape == (2, 3, 4, 4) and latents.dtype == torch.float32
    config = InversionConfig(timesteps=(-1, 400), num_inference_steps=10)
    inverted = model.invert(latents, _labels(2), config)
    assert {timestep: tuple(tensor.shape) for timestep, tensor in inverted.items()} == {
        -1: (2, 3, 4, 4),
        400: (2, 3, 4, 4),
    }
    denoised = model.denoise(inverted[400], _labels(2), DECODE)
    assert denoised.shape == (2, 3, 4, 4) and denoised.dtype == torch.float32
    images = model.decode(denoised)
    assert images.shape == (2, channels, 16, 16) and images.dtype == torch.float32
    assert images.min() >= -1 and images.max() <= 1


@pytest.mark.parametrize("shift", [None, 0.25])
def test_scaling_factor_is_applied_once_each_way(shift: float | None) -> None:
    pipeline = tiny_pipeline()
    pipeline.vae.register_to_config(shift_factor=shift)
    model = LatentDiffusion(pipeline.transformer, pipeline.vae, pipeline.scheduler, device="cpu")
    with torch.no_grad():
        raw = pipeline.vae.encode(_images()).latent_dist.mean
        torch.testing.assert_close(model.encode(_images()), (raw - (shift or 0)) * 0.7)
        expected = pipeline.vae.decode(raw).sample.clamp(-1, 1)
        torch.testing.assert_close(model.decode((raw - (shift or 0)) * 0.7), expected)


def test_decoded_images_are_clamped(model: LatentDiffusion) -> None:
    images = model.decode(_latents() * 1000)
    assert images.abs().max() == 1


def test_posterior_sample_of_an_image_depends_on_its_generator_alone(model: LatentDiffusion) -> None:
    images = _images(3)
    together = model.encode(images, [torch.Generator().manual_seed(seed) for seed in (4, 5, 6)])
    alone = model.encode(images[1:2], [torch.Generator().manual_seed(5)])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)
    other = model.encode(images[1:2], [torch.Generator().manual_seed(6)])
    mean = model.encode(images[1:2])
    assert (other - alone).abs().max() > 1e-3 and (mean - alone).abs().max() > 1e-3


def test_pixels_do_not_depend_on_the_batch(model: LatentDiffusion) -> None:
    count = CHUNK + 6
    latents, labels = _latents(count), _labels(count)
    denoised = model.denoise(latents, labels, DECODE)
    images = model.decode(denoised)
    assert len(denoised) == len(images) == count
    for index in (0, CHUNK - 1, CHUNK, count - 1):
        one = slice(index, index + 1)
        torch.testing.assert_close(
            model.denoise(latents[one], labels[one], DECODE), denoised[one], rtol=0, atol=1e-5
        )
        torch.testing.assert_close(model.decode(denoised[one]), images[one], rtol=0, atol=1e-5)


def test_class_labels_guidance_and_timestep_reach_the_model(model: LatentDiffusion) -> None:
    latents = _latents()
    denoised = [
        model.denoise(latents, torch.tensor(labels), DecodeConfig(timestep, 10, guidance_scale))
        for labels, timestep, guidance_scale in [
            ([0, 1], 400, 2.0),
            ([0, 2], 400, 2.0),
            ([0, 1], 400, 3.0),
            ([0, 1], 200, 2.0),
        ]
    ]
    torch.testing.assert_close(denoised[0][0], denoised[1][0])
    for other in (denoised[1][1], denoised[2][1], denoised[3][1]):
        assert (denoised[0][1] - other).abs().max() > 1e-3


@pytest.mark.parametrize("num_classes", [3, 5])
def test_null_class_is_the_one_behind_the_last(num_classes: int) -> None:
    model = tiny_model(num_classes=num_classes)
    assert model.num_classes == model.null_class_label == num_classes
    with Asked(model) as asked:
        model.denoise(_latents(), _labels(2), DECODE)
        config = InversionConfig(timesteps=(400,), num_inference_steps=10, guidance_scale=2.0)
        model.invert(_latents(), _labels(2), config)
    assert asked.labels == [[0, 1, num_classes, num_classes]] * 10


def test_denoising_starts_at_the_timestep_of_the_latents(model: LatentDiffusion) -> None:
    with Asked(model) as asked:
        model.denoise(_latents(), _labels(2), DECODE)
    assert asked.timesteps == [400, 300, 200, 100, 0]


def test_denoising_of_the_reference_starts_one_grid_step_above(model: LatentDiffusion) -> None:
    config = DecodeConfig(timestep=400, num_inference_steps=10, guidance_scale=2.0, reference_off_by_one=True)
    with Asked(model) as asked:
        denoised = model.denoise(_latents(), _labels(2), config)
    assert asked.timesteps == [500, 400, 300, 200, 100, 0]
    above = DecodeConfig(timestep=500, num_inference_steps=10, guidance_scale=2.0)
    assert torch.equal(denoised, model.denoise(_latents(), _labels(2), above))


def test_nothing_is_one_grid_step_above_the_last(model: LatentDiffusion) -> None:
    config = DecodeConfig(timestep=900, num_inference_steps=10, reference_off_by_one=True)
    with pytest.raises(ConfigError, match="900"):
        model.denoise(_latents(), _labels(2), config)


@pytest.mark.parametrize("off_by_one", [False, True])
def test_timesteps_off_the_grid_are_refused(model: LatentDiffusion, off_by_one: bool) -> None:
    config = DecodeConfig(timestep=450, num_inference_steps=10, reference_off_by_one=off_by_one)
    with pytest.raises(ConfigError, match="450"):
        model.denoise(_latents(), _labels(2), config)


def test_inversion_is_undone_by_denoising(model: LatentDiffusion) -> None:
    """With many small steps the field hardly differs between the two ends of a step."""
    latents, labels = _latents(), _labels(2)
    inverted = model.invert(latents, labels, InversionConfig(timesteps=(100,), num_inference_steps=1000))[100]
    denoised = model.denoise(
        inverted, labels, DecodeConfig(100, num_inference_steps=1000, guidance_scale=1.0)
    )
    assert (inverted - latents).abs().max() > 0.1
    assert (denoised - latents).abs().max() < 0.02


def test_fingerprint_names_what_inverts() -> None:
    fingerprints = [
        tiny_model().inversion_fingerprint,
        tiny_model(prediction_type="v_prediction").inversion_fingerprint,
    ]
    for part in ("transformer", "vae"):
        pipeline = tiny_pipeline()
        next(getattr(pipeline, part).parameters()).data.view(-1)[0] += 1e-3
        other = LatentDiffusion(pipeline.transformer, pipeline.vae, pipeline.scheduler, device="cpu")
        fingerprints.append(other.inversion_fingerprint)
    pipeline = tiny_pipeline()
    schedule = type(pipeline.scheduler)(beta_schedule="scaled_linear")
    fingerprints.append(
        LatentDiffusion(pipeline.transformer, pipeline.vae, schedule, device="cpu").inversion_fingerprint
    )
    assert len(set(fingerprints)) == 5
    assert tiny_model().inversion_fingerprint == fingerprints[0]
    pipeline = tiny_pipeline()
    next(pipeline.vae.decoder.parameters()).data.view(-1)[0] += 1e-3
    decoder = LatentDiffusion(pipeline.transformer, pipeline.vae, pipeline.scheduler, device="cpu")
    assert decoder.inversion_fingerprint == fingerprints[0]


def test_fingerprint_survives_the_disk(saved: Path, model: LatentDiffusion) -> None:
    assert (
        LatentDiffusion.from_pretrained(saved, device="cpu").inversion_fingerprint
        == model.inversion_fingerprint
    )


def test_no_gradients_are_kept(model: LatentDiffusion) -> None:
    assert not any(parameter.requires_grad for parameter in model.transformer.parameters())
    assert not any(parameter.requires_grad for parameter in model.vae.parameters())
    assert not model.transformer.training and not model.vae.training
    latents = _latents().requires_grad_()
    assert not model.decode(model.denoise(latents, _labels(2), DECODE)).requires_grad


def test_saved_model_is_the_same_model(saved: Path, model: LatentDiffusion) -> None:
    loaded = LatentDiffusion.from_pretrained(saved, device="cpu")
    assert loaded.num_classes == 3 and loaded.latent_shape == (3, 4, 4)
    assert torch.equal(loaded.encode(_images()), model.encode(_images()))
    denoised = loaded.denoise(_latents(), _labels(2), DECODE)
    assert torch.equal(denoised, model.denoise(_latents(), _labels(2), DECODE))
    assert torch.equal(loaded.decode(denoised), model.decode(denoised))


def test_model_is_loaded_from_a_folder_given_as_text(saved: Path) -> None:
    assert LatentDiffusion.from_pretrained(str(saved), device="cpu").num_classes == 3


def test_model_in_half_precision_gives_float32(saved: Path) -> None:
    model = LatentDiffusion.from_pretrained(saved, device="cpu", torch_dtype=torch.bfloat16)
    assert model.transformer.dtype == model.vae.dtype == torch.bfloat16
    latents = model.encode(_images())
    denoised = model.denoise(latents, _labels(2), DECODE)
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


@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, EDMEulerScheduler])
def test_schedulers_without_betas_are_refused(kind: Any, model_copy: Path) -> None:
    kind().save_pretrained(model_copy / "scheduler")
    with pytest.raises(ModelFormatError, match=rf"(?s)is {kind.__name__}, .*DDIMScheduler"):
        LatentDiffusion.from_pretrained(model_copy, device="cpu")


@pytest.mark.parametrize("kind", [DDPMScheduler, DPMSolverMultistepScheduler])  # the latter writes -Infinity
def test_schedulers_that_share_the_betas_are_read_as_ddim(kind: Any, saved: Path, model_copy: Path) -> None:
    before = LatentDiffusion.from_pretrained(saved, device="cpu").scheduler
    kind.from_config(before.config).save_pretrained(model_copy / "scheduler")
    check_model_file(model_copy / "scheduler" / "scheduler_config.json")  # what an artifact asks of it
    after = LatentDiffusion.from_pretrained(model_copy, device="cpu").scheduler
    assert type(after) is DDIMScheduler and torch.equal(after.alphas_cumprod, before.alphas_cumprod)


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
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "predicts 'sample'"),
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


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (2, 3, 8, 8), (2, 3, 4), (3, 4, 4)])
def test_latents_of_another_shape_are_refused(shape: tuple[int, ...], model: LatentDiffusion) -> None:
    latents = torch.zeros(shape)
    with pytest.raises(ModelFormatError, match=r"\(3, 4, 4\)"):
        model.decode(latents)
    with pytest.raises(ModelFormatError, match=r"\(3, 4, 4\)"):
        model.denoise(latents, _labels(len(latents)), DECODE)
    with pytest.raises(ModelFormatError, match=r"\(3, 4, 4\)"):
        model.invert(latents, _labels(len(latents)), InversionConfig((400,), num_inference_steps=10))


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 8, 8), (1, 16, 16)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], model: LatentDiffusion) -> None:
    with pytest.raises(ModelFormatError, match=r"\(1, 16, 16\)"):
        model.encode(torch.zeros(shape))


def test_repr_says_what_the_model_is(model: LatentDiffusion) -> None:
    assert repr(model) == "LatentDiffusion(num_classes=3, latent_shape=(3, 4, 4), device='cpu')"
