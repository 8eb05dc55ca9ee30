"""Errors of statistics are counted in the standard errors that classes of a size have anyway."""

from __future__ import annotations

import pytest
import torch

from d3hr_datasets import ClassGaussians
from recipes.evaluate.inversion_steps import errors, ways


def test_an_error_of_one_standard_error_is_one() -> None:
    count = torch.full((2,), 50)
    wanted = ClassGaussians(torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 4.0), count)
    found = ClassGaussians(torch.full((2, 1, 2, 2), 2 / 10), torch.full((2, 1, 2, 2), 4.0), count)
    off = errors(found, wanted, class_size=100)
    assert off["means"] == pytest.approx(1)
    assert off["means, of the spread"] == pytest.approx(0.1)
    assert off["variances"] == off["spreads, relative"] == 0
    wider = ClassGaussians(wanted.mean, wanted.variance * (1 + (2 / 99) ** 0.5), count)
    assert errors(wider, wanted, class_size=100)["variances"] == pytest.approx(1, rel=1e-5)


def test_what_is_compared_costs_what_its_name_says() -> None:
    found = ways(400, [5], [4, 8], ["uniform", "cubic"])
    assert list(found) == [
        f"{method}, {walk}"
        for method in ("ddim", "fixed_point", "adams")
        for walk in (
            "grid of 5",
            "uniform, 4 steps",
            "uniform, 8 steps",
            "cubic, 4 steps",
            "cubic, 8 steps",
        )
    ]
    assert found["adams, cubic, 8 steps"].num_steps == 8
    assert found["ddim, grid of 5"].num_inference_steps == 5
    assert all(config.timesteps == (400,) for config in found.values())
