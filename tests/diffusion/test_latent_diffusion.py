"""Images, latents and inverted latents of a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from d3hr_datasets import DecodeConfig, InversionConfig
from d3hr_datasets.diffusion.conditioning import ClassLabels
from d3hr_datasets.diffusion.latent_diffusion import CHUNK, LatentDiffusion
from d3hr_datasets.errors import ConfigError, ModelFormatError
from tests.support.model_inputs import DECODE, labels_in_turn, random_images, random_latents
from tests.support.tiny import tiny_model, tiny_pipeline


class Asked:
    """Notes the timesteps and class labels that a model is asked for."""

    def __init__(self, model: LatentDiffusion) -> None:
        self.timesteps: list[int] = []
        self.labels: list[list[int]] = []
        self.handle = model.network.register_forward_pre_hook(self, with_kwargs=True)

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
    latents = model.encode(random_images(2, channels))
    assert latents.shape == (2, 3, 4, 4) and latents.dtype == torch.float32
    config = InversionConfig(timesteps=(-1, 400), num_inference_steps=10)
    inverted = model.invert(latents, labels_in_turn(2), config)
    assert {timestep: tuple(tensor.shape) for timestep, tensor in inverted.items()} == {
        -1: (2, 3, 4, 4),
        400: (2, 3, 4, 4),
    }
    denoised = model.denoise(inverted[400], labels_in_turn(2), DECODE)
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
        raw = pipeline.vae.encode(random_images()).latent_dist.mean
        torch.testing.assert_close(model.encode(random_images()), (raw - (shift or 0)) * 0.7)
        expected = pipeline.vae.decode(raw).sample.clamp(-1, 1)
        torch.testing.assert_close(model.decode((raw - (shift or 0)) * 0.7), expected)


def test_decoded_images_are_clamped(model: LatentDiffusion) -> None:
    images = model.decode(random_latents() * 1000)
    assert images.abs().max() == 1


def test_posterior_sample_of_an_image_depends_on_its_generator_alone(model: LatentDiffusion) -> None:
    images = random_images(3)
    together = model.encode(images, [torch.Generator().manual_seed(seed) for seed in (4, 5, 6)])
    alone = model.encode(images[1:2], [torch.Generator().manual_seed(5)])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)
    other = model.encode(images[1:2], [torch.Generator().manual_seed(6)])
    mean = model.encode(images[1:2])
    assert (other - alone).abs().max() > 1e-3 and (mean - alone).abs().max() > 1e-3


def test_pixels_do_not_depend_on_the_batch(model: LatentDiffusion) -> None:
    count = CHUNK + 6
    latents, labels = random_latents(count), labels_in_turn(count)
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
    latents = random_latents()
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
    assert model.num_classes == num_classes
    assert isinstance(model.conditioning, ClassLabels) and model.conditioning.null_class_label == num_classes
    with Asked(model) as asked:
        model.denoise(random_latents(), labels_in_turn(2), DECODE)
        config = InversionConfig(timesteps=(400,), num_inference_steps=10, guidance_scale=2.0)
        model.invert(random_latents(), labels_in_turn(2), config)
    assert asked.labels == [[0, 1, num_classes, num_classes]] * 10


def test_denoising_starts_at_the_timestep_of_the_latents(model: LatentDiffusion) -> None:
    with Asked(model) as asked:
        model.denoise(random_latents(), labels_in_turn(2), DECODE)
    assert asked.timesteps == [400, 300, 200, 100, 0]


def test_denoising_of_the_reference_starts_one_grid_step_above(model: LatentDiffusion) -> None:
    config = DecodeConfig(timestep=400, num_inference_steps=10, guidance_scale=2.0, reference_off_by_one=True)
    with Asked(model) as asked:
        denoised = model.denoise(random_latents(), labels_in_turn(2), config)
    assert asked.timesteps == [500, 400, 300, 200, 100, 0]
    above = DecodeConfig(timestep=500, num_inference_steps=10, guidance_scale=2.0)
    assert torch.equal(denoised, model.denoise(random_latents(), labels_in_turn(2), above))


def test_nothing_is_one_grid_step_above_the_last(model: LatentDiffusion) -> None:
    config = DecodeConfig(timestep=900, num_inference_steps=10, reference_off_by_one=True)
    with pytest.raises(ConfigError, match="900"):
        model.denoise(random_latents(), labels_in_turn(2), config)


@pytest.mark.parametrize("off_by_one", [False, True])
def test_timesteps_off_the_grid_are_refused(model: LatentDiffusion, off_by_one: bool) -> None:
    config = DecodeConfig(timestep=450, num_inference_steps=10, reference_off_by_one=off_by_one)
    with pytest.raises(ConfigError, match="450"):
        model.denoise(random_latents(), labels_in_turn(2), config)


def test_inversion_is_undone_by_denoising(model: LatentDiffusion) -> None:
    """With many small steps the field hardly differs between the two ends of a step."""
    latents, labels = random_latents(), labels_in_turn(2)
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


def test_no_gradients_are_kept(model: LatentDiffusion) -> None:
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not any(parameter.requires_grad for parameter in model.vae.parameters())
    assert not model.network.training and not model.vae.training
    latents = random_latents().requires_grad_()
    assert not model.decode(model.denoise(latents, labels_in_turn(2), DECODE)).requires_grad


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (2, 3, 8, 8), (2, 3, 4), (3, 4, 4)])
def test_latents_of_another_shape_are_refused(shape: tuple[int, ...], model: LatentDiffusion) -> None:
    latents = torch.zeros(shape)
    with pytest.raises(ModelFormatError, match=r"\(3, 4, 4\)"):
        model.decode(latents)
    with pytest.raises(ModelFormatError, match=r"\(3, 4, 4\)"):
        model.denoise(latents, labels_in_turn(len(latents)), DECODE)
    with pytest.raises(ModelFormatError, match=r"\(3, 4, 4\)"):
        model.invert(latents, labels_in_turn(len(latents)), InversionConfig((400,), num_inference_steps=10))


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 8, 8), (1, 16, 16)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], model: LatentDiffusion) -> None:
    with pytest.raises(ModelFormatError, match=r"\(1, 16, 16\)"):
        model.encode(torch.zeros(shape))


def test_repr_says_what_the_model_is(model: LatentDiffusion) -> None:
    assert repr(model) == "LatentDiffusion(num_classes=3, latent_shape=(3, 4, 4), device='cpu')"
