"""How often the network runs to invert an image, said before it does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from d3hr_datasets import InversionConfig
from d3hr_datasets.diffusion.inversion import inversion_passes
from tests.support.tiny import tiny_model

FIXED: dict[str, Any] = {"method": "fixed_point"}


@pytest.mark.parametrize(
    ("timesteps", "options"),
    [
        ((-1, 200, 400), {}),
        ((400,), {"guidance_scale": 2.0}),
        ((400,), FIXED),
        ((200, 400), {**FIXED, "evaluations_per_step": 3}),
        ((-1,), FIXED),
        ((200, 400), {"first_timestep": 0}),
        ((400,), {"method": "adams"}),
        ((-1,), {"method": "adams"}),
        ((200, 400), {**FIXED, "num_steps": 6, "spacing": "cubic"}),
        ((0, 400), {"method": "adams", "num_steps": 6, "spacing": "quadratic"}),
        ((400,), {"num_steps": 5, "spacing": "logsnr"}),
    ],
)
def test_passes_are_those_that_are_made(timesteps: tuple[int, ...], options: dict[str, Any]) -> None:
    model, config = tiny_model(), InversionConfig(timesteps, 10, **options)
    rows: list[int] = []
    model.network.register_forward_hook(
        lambda module, args, kwargs, output: rows.append(len(output[0])), with_kwargs=True
    )
    model.invert(torch.zeros(1, 3, 4, 4), torch.tensor([1]), config)
    assert inversion_passes(model.denoiser, config) == sum(rows)
