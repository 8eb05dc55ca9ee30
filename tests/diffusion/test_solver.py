"""Latents are walked up and down the grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from d3hr_datasets import InversionConfig
from d3hr_datasets.config.timesteps import timestep_grid
from d3hr_datasets.diffusion.noise_schedule import BetaSchedule, NoiseLevel
from d3hr_datasets.diffusion.solver import step
from d3hr_datasets.errors import ConfigError
from tests.support.fake_transformer import (
    LABELS,
    FakeTransformer,
    as_column,
    ddim_scheduler,
    denoise,
    invert,
    seeded_latents,
    wavy,
    zero,
)


def test_grid_of_fifty_steps_has_the_clean_end_and_zero() -> None:
    assert timestep_grid(50, 1000) == (-1, *range(0, 1000, 20))
    assert len(timestep_grid(50, 1000)) == 51


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_timestep_600_takes_31_evaluations_both_ways(guidance_scale: float) -> None:
    up, down = FakeTransformer(zero), FakeTransformer(zero)
    invert(up, ddim_scheduler(), seeded_latents(), timesteps=(600,), guidance_scale=guidance_scale)
    denoise(down, ddim_scheduler(), seeded_latents(), 600, guidance_scale)
    assert len(up.timesteps) == len(down.timesteps) == 31


def test_inversion_asks_at_the_source_of_each_step() -> None:
    transformer = FakeTransformer(zero)
    invert(transformer, ddim_scheduler(), seeded_latents(), timesteps=(600,))
    assert transformer.timesteps == [0, 0, *range(20, 600, 20)]


def test_inversion_of_the_reference_asks_at_the_target_of_each_step() -> None:
    transformer = FakeTransformer(zero)
    invert(transformer, ddim_scheduler(), seeded_latents(), timesteps=(600,), noise_timestep="target")
    assert transformer.timesteps == [*range(0, 620, 20)]


def test_denoising_asks_at_the_source_of_each_step() -> None:
    transformer = FakeTransformer(zero)
    denoise(transformer, ddim_scheduler(), seeded_latents(), 600)
    assert transformer.timesteps == [*range(600, -20, -20)]


def test_fixed_point_inversion_asks_where_denoising_will() -> None:
    transformer = FakeTransformer(zero)
    invert(transformer, ddim_scheduler(), seeded_latents(), timesteps=(600,), method="fixed_point")
    assert transformer.timesteps == [0, *range(20, 620, 20)]  # as many as plain DDIM
    more = FakeTransformer(zero)
    invert(
        more,
        ddim_scheduler(),
        seeded_latents(),
        timesteps=(600,),
        method="fixed_point",
        evaluations_per_step=3,
    )
    assert more.timesteps == [0, 0, 0, *(t for t in range(20, 620, 20) for _ in range(3))]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_fixed_point_inversion_is_undone_by_denoising(prediction_type: str, guidance_scale: float) -> None:
    def smooth(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.sin(latents + as_column(timesteps) / 300 + as_column(labels))

    scheduler, latents, errors = ddim_scheduler(prediction_type), seeded_latents(), []
    one: dict[str, Any] = {"method": "fixed_point"}
    for options in ({}, one, {**one, "evaluations_per_step": 30}):
        inverted = invert(
            FakeTransformer(smooth),
            scheduler,
            latents,
            timesteps=(-1, 600),
            guidance_scale=guidance_scale,
            **options,
        )
        assert torch.equal(inverted[-1], latents)
        returned = denoise(FakeTransformer(smooth), scheduler, inverted[600], 600, guidance_scale)
        errors.append(float((returned - latents).norm() / latents.norm()))
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 1e-4


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("noise_timestep", ["source", "target"])
def test_a_noise_that_never_changes_is_inverted_exactly(noise_timestep: str, guidance_scale: float) -> None:
    noise = seeded_latents(1)
    transformer = FakeTransformer(lambda latents, *_: noise.repeat(len(latents) // 2, 1, 1, 1))
    latents, scheduler = seeded_latents(), ddim_scheduler()
    inverted = invert(
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
        denoise(transformer, scheduler, inverted, 600, guidance_scale), latents, rtol=0, atol=1e-4
    )


def test_step_follows_the_formula_and_back() -> None:
    latents, noise = seeded_latents().double(), seeded_latents(1).double()
    clean = (latents - 0.8 * noise) / 0.6  # alpha = 0.36
    low, high = NoiseLevel(0.8, 0.6), NoiseLevel(0.6, 0.8)
    there = step(latents, noise, high, low)
    torch.testing.assert_close(there, 0.8 * clean + 0.6 * noise)
    torch.testing.assert_close(step(latents, noise, high, NoiseLevel(1, 0)), clean)
    torch.testing.assert_close(step(there, noise, low, high), latents)


def test_step_over_the_levels_of_flow_matching_is_eulers() -> None:
    latents, velocity = seeded_latents().double(), seeded_latents(1).double()
    noise = latents + (1 - 0.7) * velocity
    there = step(latents, noise, NoiseLevel(1 - 0.7, 0.7), NoiseLevel(1 - 0.4, 0.4))
    torch.testing.assert_close(there, latents + (0.4 - 0.7) * velocity)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_denoising_is_that_of_diffusers(prediction_type: str, set_alpha_to_one: bool) -> None:
    scheduler = ddim_scheduler(prediction_type, set_alpha_to_one=set_alpha_to_one)
    scheduler.set_timesteps(50)
    start = seeded_latents()
    expected = start
    for timestep in scheduler.timesteps[scheduler.timesteps <= 600]:
        output = wavy(expected, timestep.repeat(2), LABELS)
        expected = scheduler.step(output, timestep, expected, eta=0.0).prev_sample
    found = denoise(FakeTransformer(wavy), scheduler, start)
    assert (found - start).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_clean_end_has_the_alpha_of_the_scheduler() -> None:
    assert BetaSchedule(ddim_scheduler()).level(-1) == NoiseLevel(1, 0)
    schedule = BetaSchedule(ddim_scheduler(set_alpha_to_one=False))
    assert schedule.level(-1) == schedule.level(0)
    assert schedule.level(0).signal ** 2 == pytest.approx(0.9999)


@pytest.mark.parametrize("timestep", [610, 599, 1000, -2, 999])
def test_timesteps_off_the_grid_are_refused(timestep: int) -> None:
    with pytest.raises(ConfigError, match=str(timestep)):
        denoise(FakeTransformer(zero), ddim_scheduler(), seeded_latents(), timestep)
    with pytest.raises(ConfigError, match=str(timestep)):
        InversionConfig(timesteps=(600, timestep))


def test_several_timesteps_come_from_one_pass() -> None:
    transformer, latents = FakeTransformer(wavy), seeded_latents()
    together = invert(transformer, ddim_scheduler(), latents, timesteps=(600, -1, 0, 300))
    assert set(together) == {600, -1, 0, 300}
    assert len(transformer.timesteps) == 31
    for timestep, found in together.items():
        alone = invert(FakeTransformer(wavy), ddim_scheduler(), latents, timesteps=(timestep,))
        assert torch.equal(found, alone[timestep])
    assert torch.equal(together[-1], latents)


@pytest.mark.parametrize("steps", [50, 10])
def test_finer_grids_take_more_steps(steps: int) -> None:
    transformer = FakeTransformer(wavy)
    invert(transformer, ddim_scheduler(), seeded_latents(), timesteps=(600,), num_inference_steps=steps)
    assert len(transformer.timesteps) == 1 + 600 * steps // 1000


def test_clean_latents_are_denoised_already() -> None:
    transformer = FakeTransformer(wavy)
    assert torch.equal(denoise(transformer, ddim_scheduler(), seeded_latents(), -1), seeded_latents())
    assert transformer.timesteps == []


def test_arithmetic_is_float32_whatever_the_model_is() -> None:
    transformer = FakeTransformer(wavy, dtype=torch.bfloat16)
    inverted = invert(transformer, ddim_scheduler(), seeded_latents().bfloat16(), timesteps=(-1, 600))
    denoised = denoise(transformer, ddim_scheduler(), inverted[600])
    assert transformer.dtypes == {torch.bfloat16}
    assert inverted[-1].dtype == inverted[600].dtype == denoised.dtype == torch.float32


def test_latents_given_stay_as_they_are() -> None:
    latents = seeded_latents()
    denoise(FakeTransformer(wavy), ddim_scheduler(), latents)
    invert(FakeTransformer(wavy), ddim_scheduler(), latents, timesteps=(600,))
    assert torch.equal(latents, seeded_latents())
