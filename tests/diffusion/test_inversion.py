"""Inversion in counted steps and by the method of second order, on data whose equation is solved by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from d3hr_datasets.diffusion.noise_schedule import BetaSchedule
from tests.support.fake_transformer import (
    Answer,
    FakeTransformer,
    ddim_scheduler,
    invert,
    label_as_noise,
    seeded_latents,
    wavy,
    zero,
)

SCHEDULER = ddim_scheduler()
SPREAD, NARROW = 0.5, 0.1  # of data


def perfect(spread: float) -> Answer:
    """Return the model that predicts the noise in data of N(0, spread^2)."""

    def answer(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        level = BetaSchedule(SCHEDULER).level(int(timesteps[0]))
        return latents * level.noise / (level.signal**2 * spread**2 + level.noise**2)

    return answer


def error(spread: float = SPREAD, timestep: int = 400, **options: Any) -> float:
    """Return how far inverted latents are from the solution: data / spread at the width of noisy data."""
    level = BetaSchedule(SCHEDULER).level(timestep)
    width = (level.signal**2 * spread**2 + level.noise**2) ** 0.5
    data = spread * seeded_latents()
    found = invert(FakeTransformer(perfect(spread)), SCHEDULER, data, timesteps=(timestep,), **options)
    wanted = data / spread * width
    return float((found[timestep] - wanted).norm() / wanted.norm())


def test_adams_is_of_second_order_and_fixed_points_of_first() -> None:
    orders = {}
    for method in ("fixed_point", "adams"):
        few, many = (error(method=method, num_steps=steps, spacing="quadratic") for steps in (20, 40))
        orders[method] = few / many
    assert 1.6 < orders["fixed_point"] < 2.6
    assert 3.2 < orders["adams"] < 5.2
    assert error(method="adams", num_steps=40, spacing="quadratic") < 2e-3


@pytest.mark.parametrize("method", ["ddim", "fixed_point"])
def test_steps_that_are_closer_near_the_clean_end_are_worth_more(method: str) -> None:
    by_spacing = [
        error(NARROW, method=method, num_steps=6, spacing=spacing)
        for spacing in ("uniform", "quadratic", "cubic")
    ]
    assert by_spacing[1] < 0.6 * by_spacing[0]
    assert by_spacing[2] < by_spacing[1]


def test_a_noise_that_never_changes_is_inverted_exactly() -> None:
    level = BetaSchedule(SCHEDULER).level(400)
    data = seeded_latents()
    found = invert(
        FakeTransformer(label_as_noise), SCHEDULER, data, timesteps=(400,), method="adams", num_steps=3
    )
    wanted = level.signal * data + level.noise * torch.tensor([1.0, 5.0]).view(-1, 1, 1, 1)
    assert torch.allclose(found[400], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"num_steps": 4}, [0, 99, 200, 300]),
        ({"num_steps": 4, "spacing": "quadratic"}, [0, 24, 99, 225]),
        ({"num_steps": 4, "spacing": "cubic"}, [0, 5, 49, 168]),
        ({"num_steps": 2, "method": "fixed_point"}, [0, 400]),
        ({"num_steps": 2, "method": "adams"}, [0, 200, 400]),
    ],
)
def test_counted_steps_end_where_their_spacing_says(options: dict[str, Any], asked: list[int]) -> None:
    transformer = FakeTransformer(zero)
    invert(transformer, SCHEDULER, seeded_latents(), timesteps=(400,), **options)
    assert transformer.timesteps == asked


def test_a_walk_stops_at_the_lower_times() -> None:
    transformer = FakeTransformer(wavy)
    counted: dict[str, Any] = {"num_steps": 4, "spacing": "quadratic"}
    both = invert(transformer, SCHEDULER, seeded_latents(), timesteps=(400, 160, -1), **counted)
    assert transformer.timesteps == [0, 24, 99, 160, 225]
    assert list(both) == [400, 160, -1]
    assert torch.equal(both[-1], seeded_latents())
    passed = FakeTransformer(wavy)
    invert(passed, SCHEDULER, seeded_latents(), timesteps=(200, 400), num_steps=2)
    assert passed.timesteps == [0, 200]


def test_there_are_no_more_steps_than_timesteps() -> None:
    transformer = FakeTransformer(zero)
    found = invert(transformer, SCHEDULER, seeded_latents(), timesteps=(-1, 0, 20), num_steps=50)
    assert transformer.timesteps == [0, *range(20)]
    assert torch.equal(found[-1], seeded_latents())


def test_a_schedule_without_a_clean_end_divides_by_no_zero() -> None:
    scheduler = ddim_scheduler(set_alpha_to_one=False)
    found = invert(
        FakeTransformer(wavy), scheduler, seeded_latents(), timesteps=(20,), method="adams", num_steps=21
    )
    assert found[20].isfinite().all()
