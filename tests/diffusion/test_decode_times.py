"""Where the steps of decoding start, where there is guidance, and how often the network runs."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch

from d3hr_datasets import DecodeConfig
from d3hr_datasets.config.decode_times import known_forward_passes
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.noise_schedule import BetaSchedule
from d3hr_datasets.diffusion.walk_times import decode_times, log_snr
from d3hr_datasets.errors import ConfigError
from tests.support.fake_transformer import ddim_scheduler
from tests.support.kinds import Kinds
from tests.support.tiny_kinds import PIPELINES

LABELS = torch.tensor([0, 2, 1])
SCHEDULE = BetaSchedule(ddim_scheduler())
TIMED = [name for name in PIPELINES if name not in ("pixart-alpha", "flux-dev")]  # whose latents are large


def times(timestep: int = 400, **options: Any) -> tuple[float, ...]:
    return decode_times(SCHEDULE, DecodeConfig(timestep, **options))


def test_steps_of_the_grid_are_as_they_always_were() -> None:
    assert times(num_inference_steps=25) == (*range(400, -1, -40), -1)
    assert times(num_inference_steps=25, solver="unipc") == (*range(400, -1, -40), -1)
    assert times(600, reference_off_by_one=True)[:3] == (620, 600, 580)


def test_counted_steps_begin_at_the_start_and_are_as_many() -> None:
    assert times(num_steps=4) == (400, 300, 200, 99, -1)
    assert times(num_steps=4, spacing="quadratic") == (400, 225, 99, 24, -1)
    assert times(num_steps=1) == times(num_steps=1, spacing="logsnr") == (400, -1)
    assert times(0, num_steps=1) == (0, -1)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "logsnr"])
@pytest.mark.parametrize("timestep", [0, 1, 10, 200, 999])
def test_there_are_as_many_times_as_steps_up_to_one_at_each_timestep(timestep: int, spacing: Any) -> None:
    for number in {1, 2, 3, timestep // 2, timestep, timestep + 1} - {0}:
        if number <= timestep + 1:
            found = times(timestep, num_steps=number, spacing=spacing)
            assert len(found) == number + 1
            assert found[0] == timestep and found[-1] == -1
            assert list(found) == sorted(set(found), reverse=True)
            assert all(isinstance(time, int) for time in found)


def test_steps_are_uniform_in_log_snr() -> None:
    found = times(num_steps=6, spacing="logsnr")
    values = [log_snr(SCHEDULE.level(time)) for time in found[:-1]]
    assert found[-2:] == (0, -1)
    steps = [after - before for before, after in itertools.pairwise(values)]
    assert max(steps) < 1.15 * min(steps)  # timesteps are whole numbers, and coarse near the clean end


@pytest.mark.parametrize("start", [0.0005, 0.4, 0.999])
def test_sigmas_are_no_whole_numbers(start: float, kinds: Kinds) -> None:
    schedule = kinds.model("dit-flow").schedule

    def of(**options: Any) -> tuple[float, ...]:
        return decode_times(schedule, DecodeConfig(start, grid="flow", **options))

    assert of(num_steps=4) == pytest.approx((start, 0.75 * start, 0.5 * start, 0.25 * start, -1))
    assert of(num_steps=2, spacing="quadratic") == pytest.approx((start, 0.25 * start, -1))
    found = of(num_steps=5, spacing="logsnr")
    assert found[0] == start and found[-2:] == pytest.approx((min(0.001, start / 2), -1))
    values = [math.log((1 - sigma) / sigma) for sigma in found[:-1]]
    steps = [after - before for before, after in itertools.pairwise(values)]
    assert steps == pytest.approx([steps[0]] * 4) and steps[0] > 0


def test_times_that_the_model_has_not_are_refused(kinds: Kinds) -> None:
    with pytest.raises(ConfigError, match="from -1 to 999, not 1000"):
        times(1000, num_steps=4)
    with pytest.raises(ConfigError, match="grid 'ddim', and the model's is 'flow'"):
        decode_times(kinds.model("dit-flow").schedule, DecodeConfig(400, num_steps=4))
    zero = BetaSchedule(ddim_scheduler(rescale_betas_zero_snr=True))
    with pytest.raises(ConfigError, match="noise alone"):
        decode_times(zero, DecodeConfig(999, num_steps=4))


class Passes:
    """Counts the forward passes of a network, by the rows of a batch."""

    def __init__(self, model: LatentDiffusion) -> None:
        self.rows = 0
        self._forward = model.network.forward
        model.network.forward = self._count
        self._model = model

    def _count(self, *args: Any, **kwargs: Any) -> Any:
        output = self._forward(*args, **kwargs)
        self.rows += len(output.sample)
        return output

    def stop(self) -> int:
        del self._model.network.forward
        return self.rows


def denoise(model: LatentDiffusion, **options: Any) -> tuple[torch.Tensor, float]:
    """Return the clean latents of three, and the forward passes that each took."""
    config = DecodeConfig(**options)
    latents = torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(8))
    passes = Passes(model)
    try:
        found = model.denoise(latents, LABELS, config)
    finally:
        number = passes.stop()
    assert number / 3 == model.forward_passes(config)
    return found, number / 3


@pytest.mark.parametrize("name", TIMED)
def test_forward_passes_are_those_of_the_network_of_every_kind(name: str, kinds: Kinds) -> None:
    model = kinds.model(name)
    schedule = model.schedule
    start = schedule.default_time(10)
    base: dict[str, Any] = {"timestep": start, "grid": schedule.grid_kind, "guidance_scale": 3.0}
    assert denoise(model, **base, num_steps=4, solver="dpm++2m")[1] == 8
    half = (0.6 * start, start)  # two of four, or of five
    assert denoise(model, **base, num_steps=4, guidance_interval=half, solver="unipc")[1] == 6
    assert denoise(model, **base, num_steps=4, spacing="logsnr", guidance_interval=(0, start / 2))[1] < 8
    on_grid = denoise(model, **base, num_inference_steps=10)[1]
    assert on_grid == 2 * (len(schedule.path(start, 10, schedule.grid_kind)) - 1)
    assert denoise(model, **{**base, "guidance_scale": 1.0}, num_inference_steps=10)[1] == on_grid / 2


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m", "unipc"])
@pytest.mark.parametrize("name", ["dit", "sd-1", "dit-flow"])
def test_guidance_in_an_interval(name: str, solver: Any, kinds: Kinds) -> None:
    model = kinds.model(name)
    start = model.schedule.default_time(50)
    options: dict[str, Any] = {"timestep": start, "grid": model.schedule.grid_kind, "solver": solver}
    guided, _ = denoise(model, **options, num_steps=5, guidance_scale=3.0)
    plain, _ = denoise(model, **options, num_steps=5, guidance_scale=1.0)

    def within(low: float, high: float) -> tuple[torch.Tensor, float]:
        return denoise(model, **options, num_steps=5, guidance_scale=3.0, guidance_interval=(low, high))

    everywhere, passes = within(0, start)
    assert torch.equal(everywhere, guided) and passes == 10
    assert torch.equal(within(start / 6, start)[0], guided)  # the last step starts at a fifth
    nowhere, passes = within(0, 0)
    assert torch.equal(nowhere, plain) and passes == 5
    first, passes = within(start, start)  # both ends belong to it
    assert passes == 6 and not torch.equal(first, guided) and not torch.equal(first, plain)


def test_no_pass_is_run_without_the_class_outside(kinds: Kinds) -> None:
    """What is left out is the pass of no class, in the same order of evaluations."""
    model = kinds.model("dit")
    seen: list[tuple[int, list[int]]] = []

    def note(module: Any, args: Any, given: dict[str, Any]) -> None:
        seen.append((int(given["timestep"][0]), given["class_labels"].tolist()))

    hook = model.network.register_forward_pre_hook(note, with_kwargs=True)
    latents = torch.zeros(3, *model.latent_shape)
    model.denoise(latents, LABELS, DecodeConfig(400, num_steps=4, guidance_interval=(150, 350)))
    hook.remove()
    both = [0, 2, 1, 3, 3, 3]
    assert seen == [(400, [0, 2, 1]), (300, both), (200, both), (99, [0, 2, 1])]


def test_a_model_that_is_told_the_scale_has_no_interval(kinds: Kinds) -> None:
    model = kinds.model("flux-dev")
    config = DecodeConfig(0.6, guidance_scale=3.0, grid="flow", num_steps=4)
    assert model.forward_passes(config) == 4
    refused = dataclasses.replace(config, guidance_interval=(0.2, 0.4))
    latents = torch.zeros(1, *model.latent_shape)
    with pytest.raises(ConfigError, match=r"guidance_interval \(0\.2, 0\.4\).*FLUX.*asked once; leave it"):
        model.denoise(latents, LABELS[:1], refused)
    with pytest.raises(ConfigError, match="asked once"):
        model.forward_passes(refused)


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"num_inference_steps": 25}, 22),
        ({"num_inference_steps": 25, "guidance_scale": 1.0}, 11),
        ({"num_inference_steps": 25, "reference_off_by_one": True}, 24),
        ({"num_inference_steps": 25, "guidance_interval": (100, 320)}, 11 + 6),
        ({"num_steps": 6}, 12),
        ({"num_steps": 6, "spacing": "logsnr"}, 12),
        ({"num_steps": 6, "spacing": "logsnr", "guidance_interval": (100, 320)}, None),
        ({"num_steps": 6, "spacing": "quadratic", "guidance_interval": (100, 320)}, 6 + 2),
        ({"num_inference_steps": 25, "grid": "scheduler"}, None),
        ({"num_steps": 6, "grid": "scheduler"}, 12),
    ],
)
def test_what_settings_alone_say_is_what_the_model_says(options: dict[str, Any], passes: int | None) -> None:
    config = DecodeConfig(400, **{"guidance_scale": 3.0, **options})
    assert known_forward_passes(config, 1000) == passes
    if passes is not None and config.grid == "ddim":
        found = decode_times(SCHEDULE, config)[:-1]
        assert sum(1 if config.guidance_at(time) == 1 else 2 for time in found) == passes
