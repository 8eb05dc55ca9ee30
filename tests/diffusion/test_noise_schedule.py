"""Times, levels of noise and predictions are those of diffusers' schedulers."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from d3hr_datasets import DecodeConfig
from d3hr_datasets.config.timesteps import CLEAN, GridKind, timestep_grid
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.noise_schedule import BetaSchedule, FlowSchedule, NoiseSchedule, open_schedule
from d3hr_datasets.errors import ConfigError, ModelFormatError
from tests.support.plain_loops import denoise_plainly
from tests.support.tiny_kinds import dit

DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}


def schedule_of(scheduler: Any, **options: Any) -> NoiseSchedule:
    return open_schedule({"_class_name": type(scheduler).__name__, **scheduler.config}, **options)


@pytest.mark.parametrize("steps", [1, 7, 10, 50, 250])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_timesteps_are_those_of_ddim(spacing: str, offset: int, steps: int) -> None:
    scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(steps)
    schedule = schedule_of(scheduler)
    assert list(schedule.scheduler_times(steps)) == sorted(scheduler.timesteps.tolist())
    assert schedule.grid_kind == ("ddim" if (spacing, offset) == ("leading", 0) else "scheduler")
    assert schedule.path(schedule.scheduler_times(steps)[-1], steps, "scheduler")[0] == CLEAN


def test_schedules_of_other_walks_have_other_fingerprints() -> None:
    """Finished chunks of one are not used for another; those of earlier versions still are."""
    betas: tuple[dict[str, Any], ...] = (
        {},
        {"steps_offset": 1},
        {"timestep_spacing": "trailing"},
        {"set_alpha_to_one": False},
    )
    dynamic = {"use_dynamic_shifting": True, "base_shift": math.log(2), "max_shift": math.log(2)}
    flows: tuple[dict[str, Any], ...] = ({}, {"shift": 2.0}, dynamic)
    schedules = [schedule_of(DDIMScheduler(**options)) for options in betas]
    schedules += [schedule_of(FlowMatchEulerDiscreteScheduler(**options)) for options in flows]
    assert schedules[6].shift == schedules[5].shift == 2  # and their grids differ
    assert len({schedule.fingerprint_bytes() for schedule in schedules}) == 7
    assert schedules[0].fingerprint_bytes() == DDIMScheduler().alphas_cumprod.numpy().tobytes() + b"epsilon"


@pytest.mark.parametrize("steps", [1, 7, 30, 50, 1000])
def test_the_grid_of_old_artifacts_is_that_of_ddim(steps: int) -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(steps)
    times = timestep_grid(steps, 1000)
    assert times == (CLEAN, *sorted(scheduler.timesteps.tolist()))
    schedule = schedule_of(scheduler)
    grids: tuple[GridKind, ...] = ("ddim", "scheduler")
    for grid in grids:
        assert schedule.path(times[-1], steps, grid) == times
    assert schedule.path(times[-1], steps, "ddim", first=0) == (times[1:] if steps > 1 else (0,))


def test_linspace_is_read_as_leading() -> None:
    """Steps of `DDIMScheduler` are as long there, whatever the spacing says."""
    schedule = schedule_of(DPMSolverMultistepScheduler(beta_end=0.01))
    assert schedule.scheduler_times(10) == tuple(range(0, 1000, 100)) and schedule.grid_kind == "ddim"
    assert isinstance(schedule, BetaSchedule) and schedule.scheduler.config.beta_end == 0.01


@pytest.mark.parametrize("steps", [4, 10, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_sigmas_are_those_of_flow_matching(shift: float, steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    schedule = schedule_of(scheduler)
    times = schedule.scheduler_times(steps)
    assert list(times) == scheduler.sigmas[:-1].flip(0).tolist() and times[-1] == 1
    assert (schedule.grid_kind, schedule.shift, schedule.prediction_type) == (
        "flow",
        shift,
        "flow_prediction",
    )
    path = schedule.path(times[2], steps, "flow")
    assert path == (CLEAN, *times[:3])
    assert schedule.path((times[1] + times[2]) / 2, steps, "flow")[:3] == (CLEAN, *times[:2])
    torch.testing.assert_close(schedule.model_time(times[1]), float(scheduler.timesteps[-2]))


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_sigmas_are_shifted_by_the_number_of_tokens(kind: str, linear: bool) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, time_shift_type=kind, **DYNAMIC)
    mu = calculate_shift(1024, 256, 4096, 0.5, 1.15)
    options = {"sigmas": np.linspace(1, 1 / 10, 10)} if linear else {}
    scheduler.set_timesteps(10, mu=mu, **options)
    schedule = schedule_of(scheduler, num_tokens=1024, linear_sigmas=linear)
    times = torch.tensor(schedule.scheduler_times(10))
    torch.testing.assert_close(times, scheduler.sigmas[:-1].flip(0))
    assert schedule.shift == pytest.approx(math.exp(mu) if kind == "exponential" else mu)
    other = schedule_of(scheduler, num_tokens=4096, linear_sigmas=linear)
    assert (torch.tensor(other.scheduler_times(10))[1:-1] > times[1:-1]).all()
    assert other.fingerprint_bytes() != schedule.fingerprint_bytes()
    assert schedule.shift is not None
    if linear:  # the shift is what it is called in `InversionConfig`
        before = torch.linspace(0.1, 1, 10)
        shifted = schedule.shift * before / (1 + (schedule.shift - 1) * before)
        torch.testing.assert_close(times, shifted)


def test_flow_sigmas_of_other_solvers_are_those_of_flow_matching() -> None:
    solver = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    found, expected = schedule_of(solver), schedule_of(FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert found.scheduler_times(10) == expected.scheduler_times(10) and found.shift == 3
    assert found.fingerprint_bytes() == expected.fingerprint_bytes()


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_levels_are_the_shares_of_signal_and_noise(set_alpha_to_one: bool) -> None:
    scheduler = DDIMScheduler(set_alpha_to_one=set_alpha_to_one)
    schedule = schedule_of(scheduler)
    for time in (0, 1, 500, 999):
        level = schedule.level(time)
        assert level.signal**2 == pytest.approx(float(scheduler.alphas_cumprod[time]))
        assert level.signal**2 + level.noise**2 == pytest.approx(1)
    clean = schedule.level(CLEAN)
    assert clean.signal**2 == pytest.approx(1 if set_alpha_to_one else float(scheduler.alphas_cumprod[0]))
    assert schedule.model_time(CLEAN) == 0 and schedule.model_time(601) == 601
    flow = schedule_of(FlowMatchEulerDiscreteScheduler(shift=3.0))
    for sigma in (0.1, 0.6, 0.99):
        assert (flow.level(sigma).signal, flow.level(sigma).noise) == (1 - sigma, sigma)
    assert (flow.level(CLEAN).signal, flow.level(CLEAN).noise, flow.model_time(CLEAN)) == (1, 0, 0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_every_prediction_is_denoised_as_ddim_does(betas: str, prediction: str) -> None:
    scheduler = DDIMScheduler(beta_schedule=betas, prediction_type=prediction, clip_sample=False)
    pipeline = dit(scheduler)
    model = LatentDiffusion(pipeline.transformer, pipeline.vae, scheduler, device="cpu")
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2])
    given = {"class_labels": labels}, {"class_labels": torch.full((2,), 3)}
    expected = denoise_plainly(pipeline, latents, given, 10, 4, 2.0)
    found = model.denoise(latents, labels, DecodeConfig(500, 10, 2.0))
    assert (found - expected).abs().max() < 1e-4 * (expected.max() - expected.min())


def test_the_default_time_is_that_of_the_paper() -> None:
    times = {"leading": 600, "trailing": 599}
    for spacing, expected in times.items():
        assert schedule_of(DDIMScheduler(timestep_spacing=spacing)).default_time(50) == expected
    assert schedule_of(DDIMScheduler(steps_offset=1)).default_time(50) == 601
    assert schedule_of(DDIMScheduler(num_train_timesteps=100)).default_time(10) == 60
    assert schedule_of(FlowMatchEulerDiscreteScheduler(shift=3.0)).default_time(50) == 0.6


def test_the_schedule_is_part_of_the_fingerprint() -> None:
    schedulers = [
        DDIMScheduler(),
        DDIMScheduler(prediction_type="v_prediction"),
        DDIMScheduler(beta_end=0.01),
        FlowMatchEulerDiscreteScheduler(),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
    ]
    assert len({schedule_of(scheduler).fingerprint_bytes() for scheduler in schedulers}) == 5


@pytest.mark.parametrize(
    ("scheduler", "changes", "message"),
    [
        (DDIMScheduler(), {"trained_betas": [0.0] * 1000}, "grows from 0 towards 1"),
        (DDIMScheduler(), {"trained_betas": [0.1, -0.1, 0.1]}, "grows from 0 towards 1"),
        (DDIMScheduler(), {"trained_betas": [0.1, 1.5]}, "grows from 0 towards 1"),
        (DDIMScheduler(), {"beta_start": -0.1}, "grows from 0 towards 1"),
        (DDIMScheduler(), {"beta_start": 2.0}, "grows from 0 towards 1"),
        (DDIMScheduler(), {"prediction_type": "flow_prediction"}, "predicts 'flow_prediction'; accepted"),
        (DDIMScheduler(), {"prediction_type": 3}, "predicts 3; accepted"),
        (FlowMatchEulerDiscreteScheduler(), {"shift": 0.0}, "do not grow"),
        (FlowMatchEulerDiscreteScheduler(), {"shift": -2.0}, "do not grow"),
        (FlowMatchEulerDiscreteScheduler(), {"shift": math.inf}, "do not grow"),
        (FlowMatchEulerDiscreteScheduler(), {"invert_sigmas": True}, "'invert_sigmas'"),
        (FlowMatchEulerDiscreteScheduler(), {"shift_terminal": 0.1}, "'shift_terminal'"),
        (FlowMatchEulerDiscreteScheduler(), {"use_karras_sigmas": True}, "'use_karras_sigmas'"),
        (diffusers.EDMEulerScheduler(), {}, "is EDMEulerScheduler, which has neither"),
    ],
)
def test_schedules_that_noise_does_not_grow_on_are_refused(
    scheduler: Any, changes: dict[str, Any], message: str
) -> None:
    config = {"_class_name": type(scheduler).__name__, **scheduler.config, **changes}
    with pytest.raises(ModelFormatError, match=message):
        open_schedule(config)


def test_times_that_a_model_does_not_know_are_refused() -> None:
    ddim = schedule_of(DDIMScheduler())
    flow = schedule_of(FlowMatchEulerDiscreteScheduler(shift=3.0))
    offset = schedule_of(
        DDIMScheduler(steps_offset=1, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    )
    for schedule, time, grid, message in [
        (ddim, 0.5, "flow", "settings are of the grid 'flow', and the model's is 'ddim'"),
        (flow, 600, "ddim", "settings are of the grid 'ddim', and the model's is 'flow'"),
        (ddim, 601, "ddim", "not on the grid of 10 steps; nearest"),
        (ddim, 1000, "ddim", "1000"),
        (offset, 1000, "scheduler", "1000"),
        (offset, 999, "scheduler", "noise alone"),
        (offset, 0.5, "scheduler", "timestep must be"),
        (flow, 1.0, "flow", "sigma between 0 and 1"),
        (flow, 600, "flow", "sigma between 0 and 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            schedule.path(time, 10, grid)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at most num_train_timesteps = 1000, not 1001"):
        offset.path(500, 1001, "scheduler")
    assert isinstance(flow, FlowSchedule)
