"""The noise of a model: guidance, learned variance, and models that predict v."""

from __future__ import annotations

import pytest
import torch

from d3hr_datasets.diffusion.noise_schedule import BetaSchedule, NoiseLevel
from d3hr_datasets.errors import ModelFormatError
from tests.support.fake_transformer import (
    LABELS,
    NULL,
    SHAPE,
    Answer,
    FakeTransformer,
    as_column,
    ddim_scheduler,
    denoise,
    invert,
    label_as_noise,
    noise_of,
    seeded_latents,
    wavy,
    zero,
)


def test_guidance_extrapolates_from_the_null_class() -> None:
    transformer = FakeTransformer(label_as_noise)
    noise = noise_of(transformer, ddim_scheduler(), 3.0)
    expected = NULL + 3.0 * (as_column(LABELS) - NULL)
    torch.testing.assert_close(noise, expected.expand(SHAPE))
    assert transformer.labels == [[1, 5, NULL, NULL]]


def test_guidance_of_zero_is_the_null_class() -> None:
    noise = noise_of(FakeTransformer(label_as_noise), ddim_scheduler(), 0.0)
    torch.testing.assert_close(noise, torch.full(SHAPE, float(NULL)))


def test_guidance_of_one_asks_for_the_class_alone() -> None:
    transformer = FakeTransformer(label_as_noise)
    noise = noise_of(transformer, ddim_scheduler(), 1.0)
    torch.testing.assert_close(noise, as_column(LABELS).expand(SHAPE))
    assert transformer.labels == [[1, 5]]


def test_guidance_reaches_inversion_and_denoising() -> None:
    up, down = FakeTransformer(label_as_noise), FakeTransformer(label_as_noise)
    invert(up, ddim_scheduler(), seeded_latents(), timesteps=(600,), guidance_scale=2.0)
    denoise(down, ddim_scheduler(), seeded_latents(), 600, 2.0)
    assert up.labels == down.labels == [[1, 5, NULL, NULL]] * 31


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_learned_variance_is_dropped(guidance_scale: float) -> None:
    def learned(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.cat([wavy(latents, timesteps, labels), torch.full_like(latents, 1e6)], dim=1)

    noise = noise_of(FakeTransformer(learned), ddim_scheduler(), guidance_scale)
    assert noise.shape == SHAPE
    torch.testing.assert_close(noise, noise_of(FakeTransformer(wavy), ddim_scheduler(), guidance_scale))


def _as_v(alpha: float) -> Answer:
    """Return the answer of a model of v that knows what `wavy` knows, for latents at `alpha`."""

    def answer(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        noise = wavy(latents, timesteps, labels)
        clean = (latents - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        v: torch.Tensor = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
        return v

    return answer


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_v_and_noise_are_the_same_model(guidance_scale: float) -> None:
    scheduler = ddim_scheduler("v_prediction")
    alpha = float(scheduler.alphas_cumprod[600])
    found = noise_of(FakeTransformer(_as_v(alpha)), scheduler, guidance_scale)
    expected = noise_of(FakeTransformer(wavy), ddim_scheduler(), guidance_scale)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_v_is_read_at_the_noise_level_of_the_latents() -> None:
    scheduler = ddim_scheduler("v_prediction")
    alpha = float(scheduler.alphas_cumprod[580])
    found = noise_of(
        FakeTransformer(_as_v(alpha)), scheduler, level=NoiseLevel(alpha**0.5, (1 - alpha) ** 0.5)
    )
    expected = wavy(seeded_latents(), torch.tensor([600, 600]), LABELS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_inversion_with_v_undoes_each_step_at_its_own_level() -> None:
    """A v that a constant noise implies at the level of the latents is inverted exactly."""
    noise, scheduler = seeded_latents(1), ddim_scheduler("v_prediction")
    levels = iter([1.0, *(float(scheduler.alphas_cumprod[t]) for t in range(0, 600, 20))])

    def answer(latents: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        alpha = next(levels)
        clean = (latents - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        v: torch.Tensor = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
        return v

    found = invert(
        FakeTransformer(answer), scheduler, seeded_latents(), timesteps=(600,), noise_timestep="target"
    )
    alpha = float(scheduler.alphas_cumprod[600])
    expected = alpha**0.5 * seeded_latents() + (1 - alpha) ** 0.5 * noise
    torch.testing.assert_close(found[600], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_clean_latents_and_noise_are_the_same_model(guidance_scale: float) -> None:
    scheduler = ddim_scheduler("sample")
    alpha = float(scheduler.alphas_cumprod[600])

    def clean(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = (latents - (1 - alpha) ** 0.5 * wavy(latents, timesteps, labels)) / alpha**0.5
        return found

    found = noise_of(FakeTransformer(clean), scheduler, guidance_scale)
    expected = noise_of(FakeTransformer(wavy), ddim_scheduler(), guidance_scale)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_clean_latents_have_no_noise_to_be_predicted() -> None:
    found = noise_of(FakeTransformer(zero), ddim_scheduler("sample"), timestep=-1)
    assert torch.equal(found, torch.zeros(SHAPE))


@pytest.mark.parametrize("prediction_type", ["flow", "flow_prediction"])
def test_other_predictions_are_refused(prediction_type: str) -> None:
    scheduler = ddim_scheduler()
    scheduler.register_to_config(prediction_type=prediction_type)
    with pytest.raises(ModelFormatError, match=f"{prediction_type}.*epsilon.*v_prediction.*sample"):
        BetaSchedule(scheduler).check()
