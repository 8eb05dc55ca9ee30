"""Solvers of second order: those of diffusers, from where diffusers cannot start, and of second order."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from d3hr_datasets import DecodeConfig
from d3hr_datasets.diffusion.denoiser import Denoiser
from d3hr_datasets.diffusion.multistep import MultistepSolver
from d3hr_datasets.diffusion.noise_schedule import NoiseLevel
from d3hr_datasets.diffusion.solver import denoise_latents
from d3hr_datasets.diffusion.walk_times import decode_times
from tests.support.fake_transformer import (
    LABELS,
    FakeTransformer,
    as_column,
    ddim_scheduler,
    denoiser,
    seeded_latents,
    wavy,
)
from tests.support.kinds import Kinds

# numpy's, of what diffusers' set_timesteps does
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCHEDULERS = {"dpm++2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
COUNTED = [("uniform", 6), ("quadratic", 5), ("logsnr", 7), ("uniform", 1), ("uniform", 2)]


def by_diffusers(model: Denoiser, latents: torch.Tensor, labels: torch.Tensor, config: DecodeConfig) -> Any:
    """Return what diffusers' scheduler makes at the same times, set by hand: it cannot choose them all."""
    times, schedule = decode_times(model.schedule, config), model.schedule
    levels = [schedule.level(time) for time in times]
    scheduler: Any = SCHEDULERS[config.solver](
        prediction_type=schedule.prediction_type,
        use_flow_sigmas=config.grid == "flow",
        trained_betas=[0.01] * schedule.num_train_timesteps,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(len(times) - 1)
    signals = [1.0 if config.grid == "flow" else level.signal for level in levels]
    scheduler.sigmas = torch.tensor(
        [level.noise / signal for level, signal in zip(levels, signals, strict=True)]
    )
    scheduler.timesteps = torch.tensor(times[:-1])
    for time in times[:-1]:
        output = model(latents, schedule.model_time(time), labels, config.guidance_scale)
        latents = scheduler.step(output, time, latents).prev_sample
    return latents


@pytest.mark.parametrize("solver", SCHEDULERS)
@pytest.mark.parametrize(("spacing", "steps"), COUNTED)
@pytest.mark.parametrize("name", ["dit", "sd-2-v", "dit-flow", "sana"])
def test_it_is_that_of_diffusers(name: str, spacing: Any, steps: int, solver: Any, kinds: Kinds) -> None:
    model = kinds.model(name)
    labels = torch.tensor([0, 2, 1])
    latents = torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(8))
    config = DecodeConfig(
        timestep=model.schedule.default_time(50),
        guidance_scale=2.0,
        grid=model.schedule.grid_kind,
        solver=solver,
        num_steps=steps,
        spacing=spacing,
    )
    found = model.denoise(latents, labels, config)
    expected = by_diffusers(model.denoiser, latents, labels, config)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    if steps > 2:  # the first and the last are DDIM's
        others = [other for other in ("ddim", *SCHEDULERS) if other != solver]
        for other in others:
            plain = model.denoise(latents, labels, DecodeConfig(**{**vars(config), "solver": other}))
            assert (plain - found).abs().max() > 1e-3


def trained(scheduler: Any) -> FakeTransformer:
    """Return what knows elements around -1 and 1, more around 1 the higher the label, as trained on them."""

    def answer(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        alpha = as_column(scheduler.alphas_cumprod[timesteps])
        variance = 0.25 * alpha + (1 - alpha)
        side = torch.tanh(alpha.sqrt() * latents / variance + as_column(labels) / 20)
        clean = side + 0.25 * alpha.sqrt() / variance * (latents - alpha.sqrt() * side)
        noise = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        answers = {"epsilon": noise, "sample": clean}
        return answers.get(
            scheduler.config.prediction_type, alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        )

    return FakeTransformer(answer)


@pytest.mark.parametrize("solver", SCHEDULERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [10, 50])
def test_on_the_grid_it_is_that_of_diffusers(prediction: str, steps: int, solver: Any) -> None:
    scheduler = ddim_scheduler(prediction)
    model = denoiser(trained(scheduler), scheduler)
    config = DecodeConfig(600, steps, 2.0, solver=solver)
    found = denoise_latents(model, seeded_latents(), LABELS, config)
    expected = by_diffusers(model, seeded_latents(), LABELS, config)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_diffusers_own_way_to_give_timesteps_is_the_same() -> None:
    """As far as it goes: timesteps to DPM-Solver, sigmas to UniPC."""
    model = denoiser(FakeTransformer(wavy), ddim_scheduler())
    config = DecodeConfig(600, guidance_scale=1.0, solver="dpm++2m", num_steps=6)
    times = decode_times(model.schedule, config)[:-1]
    assert times == (600, 500, 400, 300, 199, 99)
    scheduler = DPMSolverMultistepScheduler(beta_schedule="linear")
    scheduler.set_timesteps(timesteps=list(times))
    expected = seeded_latents()
    for time in times:
        expected = scheduler.step(
            wavy(expected, torch.tensor([time, time]), LABELS), time, expected
        ).prev_sample
    found = denoise_latents(model, seeded_latents(), LABELS, config)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpm++2m", 2), ("unipc", 3)])
def test_errors_fall_by_the_order_of_the_solver(solver: Any, order: int) -> None:
    """Away from the clean end, where log(signal / noise) is finite; steps are equal there."""

    def solve(steps: int, by: Any) -> torch.Tensor:
        latents = seeded_latents().double()
        lambdas = torch.linspace(-1, 1, steps + 1, dtype=torch.float64).tolist()
        levels = [NoiseLevel(*_shares(value)) for value in lambdas]
        walk = MultistepSolver(steps + 1, corrects=by == "unipc")  # and so no last step of first order
        for start, end, value in zip(levels, levels[1:], lambdas, strict=False):
            noise = torch.sin(0.5 * latents + value)
            if by == "ddim":
                clean = (latents - start.noise * noise) / start.signal
                latents = end.signal * clean + end.noise * noise
            else:
                latents = walk.step(latents, noise, start, end)
        return latents

    exact = solve(4000, "dpm++2m")
    errors = [float((solve(steps, solver) - exact).norm()) for steps in (20, 40)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def _shares(value: float) -> tuple[float, float]:
    """Return signal and noise at log(signal / noise), their squares of sum 1."""
    return (1 / (1 + math.exp(-2 * value))) ** 0.5, (1 / (1 + math.exp(2 * value))) ** 0.5


@pytest.mark.parametrize("solver", SCHEDULERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_few_steps_come_closer_than_those_of_ddim(prediction: str, solver: Any) -> None:
    scheduler = ddim_scheduler(prediction)
    model = denoiser(trained(scheduler), scheduler)

    def solve(**options: Any) -> torch.Tensor:
        config = DecodeConfig(600, guidance_scale=1.0, **options)
        return denoise_latents(model, seeded_latents(), LABELS, config)

    exact = solve(num_steps=601)
    errors = {
        (by, steps): float((solve(num_steps=steps, solver=by) - exact).norm())
        for by in ("ddim", solver)
        for steps in (6, 24)
    }
    for steps in (6, 24):
        assert errors[solver, steps] < 0.5 * errors["ddim", steps]
    assert errors[solver, 24] / errors[solver, 6] < 0.7 * errors["ddim", 24] / errors["ddim", 6]


@pytest.mark.parametrize("solver", SCHEDULERS)
def test_levels_that_do_not_change_are_no_division_by_zero(solver: Any) -> None:
    """As betas of zero make them, and the clean end of Stable Diffusion."""
    betas = [0.0, 0.0, 0.01, 0.0, 0.0, 0.02, 0.02, 0.0, 0.02, 0.02]
    scheduler = ddim_scheduler(num_train_timesteps=10, trained_betas=betas, set_alpha_to_one=False)
    model = denoiser(FakeTransformer(wavy), scheduler)
    for options in ({"num_steps": 10}, {"num_steps": 10, "spacing": "logsnr"}, {"num_inference_steps": 10}):
        config = DecodeConfig(9, guidance_scale=1.0, solver=solver, **options)
        found = denoise_latents(model, seeded_latents(), LABELS, config)
        assert found.isfinite().all() and (found - seeded_latents()).abs().max() > 1e-3
