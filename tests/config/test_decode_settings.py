"""Settings of decoding in few steps: what goes together, and what stays as it was."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from typing import Any

import pytest

from d3hr_datasets import D3HRFashionMNIST, DecodeConfig
from d3hr_datasets.errors import ConfigError

FEW: list[dict[str, Any]] = [
    {"solver": "dpm++2m"},
    {"solver": "unipc"},
    {"num_steps": 6},
    {"num_steps": 7},
    {"num_steps": 6, "spacing": "logsnr"},
    {"num_steps": 6, "spacing": "quadratic"},
    {"guidance_interval": (100, 400)},
    {"guidance_interval": (100, 300)},
    {"num_steps": 6, "solver": "dpm++2m", "spacing": "quadratic", "guidance_interval": (0, 300.5)},
]


def test_what_uses_none_of_it_is_written_as_before() -> None:
    assert json.dumps(DecodeConfig(400).to_dict()) == (
        '{"timestep": 400, "num_inference_steps": 50, "guidance_scale": 4.0, "reference_off_by_one": false}'
    )
    assert json.dumps(DecodeConfig(0.6, 20, 1, grid="flow").to_dict()) == (
        '{"timestep": 0.6, "num_inference_steps": 20, "guidance_scale": 1.0, "reference_off_by_one": false, '
        '"grid": "flow"}'
    )
    assert DecodeConfig(400, 50) == DecodeConfig(400) and DecodeConfig(400).num_inference_steps == 50


def test_sets_that_use_none_of_it_have_the_fingerprints_that_they_had() -> None:
    assert D3HRFashionMNIST(ipc=10).fingerprint == "db43d0820a5851c9"
    assert D3HRFashionMNIST(ipc=10, decode=DecodeConfig(200, 25, 2.0)).fingerprint == "7100377e5aa083cc"


@pytest.mark.parametrize("options", FEW, ids=str)
def test_what_uses_it_survives_json(options: dict[str, Any]) -> None:
    config = DecodeConfig(400, **options)
    values = json.loads(json.dumps(config.to_dict()))
    assert DecodeConfig.from_dict(values) == config
    assert set(config.added) == options.keys() and options.keys() <= values.keys()
    assert ("num_inference_steps" in values) == ("num_steps" not in options)


def test_each_setting_is_another_set() -> None:
    sets = [D3HRFashionMNIST(ipc=1, decode=DecodeConfig(400, **options)) for options in ({}, *FEW)]
    for one, other in itertools.combinations(sets, 2):
        assert one.fingerprint != other.fingerprint
    whole, fraction = (DecodeConfig(400, guidance_interval=(100, top)) for top in (400, 400.0))
    assert json.dumps(whole.to_dict()) == json.dumps(fraction.to_dict())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"solver": "heun"}, "solver must be one of ['ddim', 'dpm++2m', 'unipc'], not 'heun'"),
        ({"num_steps": 4, "spacing": "karras"}, "spacing must be one of"),
        ({"num_steps": 4, "num_inference_steps": 25}, "give one of them, and None for the other"),
        ({"spacing": "logsnr"}, "give num_steps, too"),
        ({"spacing": "quadratic", "num_inference_steps": 25}, "give num_steps, too"),
        ({"num_steps": 0}, "num_steps must be from 1 to 65536, not 0"),
        ({"num_steps": 402}, "num_steps must be from 1 to 401, not 402"),
        ({"num_steps": 4.0}, "num_steps must be an integer"),
        ({"num_steps": True}, "num_steps must be an integer"),
        ({"num_steps": 1, "timestep": -1}, "no step starts there: leave out num_steps"),
        ({"num_steps": 1, "timestep": -1, "grid": "flow"}, "no step starts there"),
        ({"num_steps": 70_000, "timestep": 0.5, "grid": "flow"}, "num_steps must be from 1 to 65536"),
        ({"num_inference_steps": 0}, "num_inference_steps must be from 1 to 65536, not 0"),
        ({"num_inference_steps": 10**12}, "num_inference_steps must be from 1 to 65536"),
        ({"guidance_interval": 100}, "guidance_interval must be a pair of times (low, high), not 100"),
        ({"guidance_interval": (100,)}, "must be a pair"),
        ({"guidance_interval": (1, 2, 3)}, "must be a pair"),
        ({"guidance_interval": "ab"}, "must be a pair"),
        ({"guidance_interval": (300, 100)}, "the lower time first"),
        ({"guidance_interval": (-1, 100)}, "guidance_interval must be at least 0.0"),
        ({"guidance_interval": (0, float("inf"))}, "guidance_interval must be a finite number"),
        ({"guidance_interval": (0, None)}, "guidance_interval must be a finite number"),
        ({"guidance_interval": (0, 600), "timestep": 0.5, "grid": "flow"}, "of sigmas, from 0 to 1"),
        ({"reference_off_by_one": True, "solver": "unipc"}, "leave it out, or solver"),
        ({"reference_last_step": True, "num_steps": 4}, "leave it out, or num_steps"),
        ({"reference_off_by_one": True, "guidance_interval": (0, 100)}, "or guidance_interval"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        DecodeConfig(**{"timestep": 400, **options})


def test_steps_are_counted_anew_in_a_copy() -> None:
    config = DecodeConfig(400, 25, 3.0)
    with pytest.raises(ConfigError, match="num_inference_steps=25 counts the steps of the whole grid"):
        dataclasses.replace(config, num_steps=6)
    few = dataclasses.replace(config, num_steps=6, num_inference_steps=None)
    assert few.num_inference_steps is None and few.guidance_scale == 3.0
    assert dataclasses.replace(few, num_steps=None).num_inference_steps == 50


def test_guidance_is_applied_at_both_ends_and_between() -> None:
    config = DecodeConfig(400, guidance_scale=3.0, guidance_interval=(100, 300))
    assert [config.guidance_at(time) for time in (400, 301, 300, 200, 100, 99, 0)] == [1, 1, 3, 3, 3, 1, 1]
    assert DecodeConfig(400, guidance_scale=3.0).guidance_at(0) == 3
