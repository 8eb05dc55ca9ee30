""""""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from d3hr_datasets import InversionConfig
from d3hr_datasets.config.timesteps import timestep_grid
from d3hr_datasets.diffusion.ddim import (
    alpha_cumprod,
    ddim_step,
    denoise_latents,
    invert_latents,
    predict_noise,
)
from d3hr_datasets.errors import ConfigError, ModelFormatError

NULL = 7
SHAPE = (2, 3, 4, 4)
LABELS = torch.tensor([1, 5])
Answer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class FakeTransformer:
    """Answers with a function of (latents, timesteps, labels), and notes what it was asked."""

    def __init__(self, answer: Answer, dtype: torch.dtype = torch.float32) -> None:
        self.answer = answer
        self.dtype = dtype
        self.timesteps: list[int] = []
        self.labels: list[list[int]] = []
        self.dtypes: set[torch.dtype] = set()

    def __call__(
        self, hidden_states: torch.Tensor, *, timestep: torch.Tensor, class_labels: torch.Tensor
    ) -> Any:
        assert timestep.shape == class_labels.shape == hidden_states.shape[:1]
        assert timestep.dtype == class_labels.dtype == torch.int64
        assert (timestep == timestep[0]).all()
        self.timesteps.append(int(timestep[0]))
        self.labels.append(class_labels.tolist())
        self.dtypes.add(hidden_states.dtype)
        return SimpleNamespace(sample=self.answer(hidden_states, timestep, class_labels))


def _scheduler(prediction_type: str = "epsilon", **options: Any) -> Any:
    return DDIMScheduler(
        beta_schedule="linear", clip_sample=False, prediction_type=prediction_type, **options
    )


def _latents(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def _column(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1).float()


def _zero(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(latents)


def _label(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Answer with the class label itself."""
    return _column(labels).expand_as(latents)


def _wavy(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Answer with something that depends on every input, as a model does."""
    return torch.sin(3 * latents + _column(timesteps) / 100 + _column(labels)).to(latents.dtype)


def _invert(
    transformer: Any, scheduler: Any, latents: torch.Tensor, **options: Any
) -> dict[int, torch.Tensor]:
    return invert_latents(transformer, scheduler, latents, LABELS, InversionConfig(**options), NULL)


def _denoise(
    transformer: Any, scheduler: Any, latents: torch.Tensor, timestep: int = 600, guidance_scale: float = 1.0
) -> torch.Tensor:
    return denoise_latents(transformer, scheduler, latents, LABELS, timestep, 50, guidance_scale, NULL)


def test_grid_of_fifty_steps_has_the_clean_end_and_zero() -> None:
    assert timestep_grid(50, 1000) == (-1, *range(0, 1000, 20))
    assert len(timestep_grid(50, 1000)) == 51


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_timestep_600_takes_31_evaluations_both_ways(guidance_scale: float) -> None:
    up, down = FakeTransformer(_zero), FakeTransformer(_zero)
    _invert(up, _scheduler(), _latents(), timesteps=(600,), guidance_scale=guidance_scale)
    _denoise(down, _scheduler(), _latents(), 600, guidance_scale)
    assert len(up.timesteps) == len(down.timesteps) == 31


def test_inversion_asks_at_the_source_of_each_step() -> None:
    transformer = FakeTransformer(_zero)
    _invert(transformer, _scheduler(), _latents(), timesteps=(600,))
    assert transformer.timesteps == [0, 0, *range(20, 600, 20)]


def test_inversion_of_the_reference_asks_at_the_target_of_each_step() -> None:
    transformer = FakeTransformer(_zero)
    _invert(transformer, _scheduler(), _latents(), timesteps=(600,), noise_timestep="target")
    assert transformer.timesteps == [*range(0, 620, 20)]


def test_denoising_asks_at_the_source_of_each_step() -> None:
    transformer = FakeTransformer(_zero)
    _denoise(transformer, _scheduler(), _latents(), 600)
    assert transformer.timesteps == [*range(600, -20, -20)]


def test_fixed_point_inversion_asks_where_denoising_will() -> None:
    transformer = FakeTransformer(_zero)
    _invert(transformer, _scheduler(), _latents(), timesteps=(600,), method="fixed_point")
    assert transformer.timesteps == [0, *range(20, 620, 20)]  # as many as plain DDIM
    more = FakeTransformer(_zero)
    _invert(more, _scheduler(), _latents(), timesteps=(600,), method="fixed_point", evaluations_per_step=3)
    assert more.timesteps == [0, 0, 0, *(t for t in range(20, 620, 20) for _ in range(3))]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_fixed_point_inversion_is_undone_by_denoising(prediction_type: str, guidance_scale: float) -> None:
    def smooth(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.sin(latents + _column(timesteps) / 300 + _column(labels))

    scheduler, latents, errors = _scheduler(prediction_type), _latents(), []
    one: dict[str, Any] = {"method": "fixed_point"}
    for options in ({}, one, {**one, "evaluations_per_step": 30}):
        inverted = _invert(
            FakeTransformer(smooth),
            scheduler,
            latents,
            timesteps=(-1, 600),
            guidance_scale=guidance_scale,
            **options,
        )
        assert torch.equal(inverted[-1], latents)
        returned = _denoise(FakeTransformer(smooth), scheduler, inverted[600], 600, guidance_scale)
        errors.append(float((returned - latents).norm() / latents.norm()))
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 1e-4


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("noise_timestep", ["source", "target"])
def test_a_noise_that_never_changes_is_inverted_exactly(noise_timestep: str, guidance_scale: float) -> None:
    noise = _latents(1)
    transformer = FakeTransformer(lambda latents, *_: noise.repeat(len(latents) // 2, 1, 1, 1))
    latents, scheduler = _latents(), _scheduler()
    inverted = _invert(
        transformer,
        scheduler,
        latents,
        timesteps=(600,),
        noise_timestep=noise_timestep,
        guidance_scale=guidance_scale,
    )[600]
    alpha = float(scheduler.alphas_cumprod[600])
    torch.testing.assert_close(inverted, alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        _denoise(transformer, scheduler, inverted, 600, guidance_scale), latents, rtol=0, atol=1e-4
    )


def test_step_follows_the_formula_and_back() -> None:
    latents, noise = _latents().double(), _latents(1).double()
    clean = (latents - 0.8 * noise) / 0.6  # alpha = 0.36
    there = ddim_step(latents, noise, 0.36, 0.64)
    torch.testing.assert_close(there, 0.8 * clean + 0.6 * noise)
    torch.testing.assert_close(ddim_step(latents, noise, 0.36, 1.0), clean)
    torch.testing.assert_close(ddim_step(there, noise, 0.64, 0.36), latents)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_denoising_is_that_of_diffusers(prediction_type: str, set_alpha_to_one: bool) -> None:
    scheduler = _scheduler(prediction_type, set_alpha_to_one=set_alpha_to_one)
    scheduler.set_timesteps(50)
    start = _latents()
    expected = start
    for timestep in scheduler.timesteps[scheduler.timesteps <= 600]:
        output = _wavy(expected, timestep.repeat(2), LABELS)
        expected = scheduler.step(output, timestep, expected, eta=0.0).prev_sample
    found = _denoise(FakeTransformer(_wavy), scheduler, start)
    assert (found - start).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_clean_end_has_the_alpha_of_the_scheduler() -> None:
    assert alpha_cumprod(_scheduler(), -1) == 1.0
    scheduler = _scheduler(set_alpha_to_one=False)
    assert alpha_cumprod(scheduler, -1) == alpha_cumprod(scheduler, 0) == pytest.approx(0.9999)


def test_guidance_extrapolates_from_the_null_class() -> None:
    transformer = FakeTransformer(_label)
    noise = predict_noise(transformer, _scheduler(), _latents(), 600, LABELS, 3.0, NULL)
    expected = NULL + 3.0 * (_column(LABELS) - NULL)
    torch.testing.assert_close(noise, expected.expand(SHAPE))
    assert transformer.labels == [[1, 5, NULL, NULL]]


def test_guidance_of_zero_is_the_null_class() -> None:
    noise = predict_noise(FakeTransformer(_label), _scheduler(), _latents(), 600, LABELS, 0.0, NULL)
    torch.testing.assert_close(noise, torch.full(SHAPE, float(NULL)))


def test_guidance_of_one_asks_for_the_class_alone() -> None:
    transformer = FakeTransformer(_label)
    noise = predict_noise(transformer, _scheduler(), _latents(), 600, LABELS, 1.0, NULL)
    torch.testing.assert_close(noise, _column(LABELS).expand(SHAPE))
    assert transformer.labels == [[1, 5]]


def test_guidance_reaches_inversion_and_denoising() -> None:
    up, down = FakeTransformer(_label), FakeTransformer(_label)
    _invert(up, _scheduler(), _latents(), timesteps=(600,), guidance_scale=2.0)
    _denoise(down, _scheduler(), _latents(), 600, 2.0)
    assert up.labels == down.labels == [[1, 5, NULL, NULL]] * 31


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_learned_variance_is_dropped(guidance_scale: float) -> None:
    def learned(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.cat([_wavy(latents, timesteps, labels), torch.full_like(latents, 1e6)], dim=1)

    arguments: Any = (_scheduler(), _latents(), 600, LABELS, guidance_scale, NULL)
    noise = predict_noise(FakeTransformer(learned), *arguments)
    assert noise.shape == SHAPE
    torch.testing.assert_close(noise, predict_noise(FakeTransformer(_wavy), *arguments))


def _as_v(alpha: float) -> Answer:
    """Return the answer of a model of v that knows what `_wavy` knows, for latents at `alpha`."""

    def answer(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        noise = _wavy(latents, timesteps, labels)
        clean = (latents - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        v: torch.Tensor = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
        return v

    return answer


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_v_and_noise_are_the_same_model(guidance_scale: float) -> None:
    scheduler = _scheduler("v_prediction")
    alpha = float(scheduler.alphas_cumprod[600])
    found = predict_noise(
        FakeTransformer(_as_v(alpha)), scheduler, _latents(), 600, LABELS, guidance_scale, NULL
    )
    expected = predict_noise(
        FakeTransformer(_wavy), _scheduler(), _latents(), 600, LABELS, guidance_scale, NULL
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_v_is_read_at_the_noise_level_of_the_latents() -> None:
    scheduler = _scheduler("v_prediction")
    alpha = float(scheduler.alphas_cumprod[580])
    found = predict_noise(FakeTransformer(_as_v(alpha)), scheduler, _latents(), 600, LABELS, 1.0, NULL, alpha)
    expected = _wavy(_latents(), torch.tensor([600, 600]), LABELS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_inversion_with_v_undoes_each_step_at_its_own_level() -> None:
    """A v that a constant noise implies at the level of the latents is inverted exactly."""
    noise, scheduler = _latents(1), _scheduler("v_prediction")
    levels = iter([1.0, *(float(scheduler.alphas_cumprod[t]) for t in range(0, 600, 20))])

    def answer(latents: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        alpha = next(levels)
        clean = (latents - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        v: torch.Tensor = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
        return v

    found = _invert(FakeTransformer(answer), scheduler, _latents(), timesteps=(600,), noise_timestep="target")
    alpha = float(scheduler.alphas_cumprod[600])
    expected = alpha**0.5 * _latents() + (1 - alpha) ** 0.5 * noise
    torch.testing.assert_close(found[600], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["sample", "flow"])
def test_other_predictions_are_refused(prediction_type: str) -> None:
    scheduler = _scheduler()
    scheduler.register_to_config(prediction_type=prediction_type)
    with pytest.raises(ModelFormatError, match=f"{prediction_type}.*epsilon.*v_prediction"):
        predict_noise(FakeTransformer(_zero), scheduler, _latents(), 600, LABELS, 1.0, NULL)


@pytest.mark.parametrize("timestep", [610, 599, 1000, -2, 999])
def test_timesteps_off_the_grid_are_refused(timestep: int) -> None:
    with pytest.raises(ConfigError, match=str(timestep)):
        _denoise(FakeTransformer(_zero), _scheduler(), _latents(), timestep)
    with pytest.raises(ConfigError, match=str(timestep)):
        InversionConfig(timesteps=(600, timestep))


def test_several_timesteps_come_from_one_pass() -> None:
    transformer, latents = FakeTransformer(_wavy), _latents()
    together = _invert(transformer, _scheduler(), latents, timesteps=(600, -1, 0, 300))
    assert set(together) == {600, -1, 0, 300}
    assert len(transformer.timesteps) == 31
    for timestep, found in together.items():
        alone = _invert(FakeTransformer(_wavy), _scheduler(), latents, timesteps=(timestep,))
        assert torch.equal(found, alone[timestep])
    assert torch.equal(together[-1], latents)


@pytest.mark.parametrize("steps", [50, 10])
def test_finer_grids_take_more_steps(steps: int) -> None:
    transformer = FakeTransformer(_wavy)
    _invert(transformer, _scheduler(), _latents(), timesteps=(600,), num_inference_steps=steps)
    assert len(transformer.timesteps) == 1 + 600 * steps // 1000


def test_clean_latents_are_denoised_already() -> None:
    transformer = FakeTransformer(_wavy)
    assert torch.equal(_denoise(transformer, _scheduler(), _latents(), -1), _latents())
    assert transformer.timesteps == []


def test_arithmetic_is_float32_whatever_the_model_is() -> None:
    transformer = FakeTransformer(_wavy, dtype=torch.bfloat16)
    inverted = _invert(transformer, _scheduler(), _latents().bfloat16(), timesteps=(-1, 600))
    denoised = _denoise(transformer, _scheduler(), inverted[600])
    assert transformer.dtypes == {torch.bfloat16}
    assert inverted[-1].dtype == inverted[600].dtype == denoised.dtype == torch.float32


def test_latents_given_stay_as_they_are() -> None:
    latents = _latents()
    _denoise(FakeTransformer(_wavy), _scheduler(), latents)
    _invert(FakeTransformer(_wavy), _scheduler(), latents, timesteps=(600,))
    assert torch.equal(latents, _latents())
