""""""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from d3hr_datasets import DecodeConfig, GroupSamplingConfig, InversionConfig, ModelReference
from d3hr_datasets.config.timesteps import check_on_grid, timestep_grid
from d3hr_datasets.errors import ConfigError, D3HRError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIGS: list[Any] = [
    ModelReference(repo_id="facebook/DiT-XL-2-256", revision=COMMIT),
    ModelReference(path="model"),
    InversionConfig(
        timesteps=(-1, 600), guidance_scale=4.0, noise_timestep="target", latent="sample", seed=3
    ),
    InversionConfig(timesteps=(600,), method="fixed_point", evaluations_per_step=3),
    InversionConfig(timesteps=(600,), method="adams", num_steps=6, spacing="cubic"),
    GroupSamplingConfig(method="search", seed=7, num_candidates=10, skewness_weight=0.1),
    DecodeConfig(timestep=600, num_inference_steps=50, guidance_scale=1.5, reference_off_by_one=True),
]


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_config_survives_json(config: Any) -> None:
    again = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (InversionConfig(timesteps=(600,)), {"timesteps": (600, 500), "num_inference_steps": 10}),
        (InversionConfig(timesteps=(600,)), {"guidance_scale": 4.0, "latent": "sample", "seed": 1}),
        (InversionConfig(timesteps=(600,)), {"noise_timestep": "target"}),
        (GroupSamplingConfig(), {"method": "search", "seed": 1, "num_candidates": 5}),
        (GroupSamplingConfig(), {"mean_weight": 2.0, "std_weight": 2.0, "skewness_weight": 0.1}),
        (DecodeConfig(timestep=600), {"timestep": 500, "num_inference_steps": 10, "guidance_scale": 1.0}),
        (DecodeConfig(timestep=600), {"reference_off_by_one": True}),
        (ModelReference(repo_id="a/b", revision="c" * 40), {"repo_id": "a/c", "revision": "d" * 40}),
    ],
)
def test_json_tells_every_field(config: Any, changes: dict[str, Any]) -> None:
    configs = [config, *(dataclasses.replace(config, **{name: value}) for name, value in changes.items())]
    assert len({json.dumps(item.to_dict()) for item in configs}) == len(configs)


def test_equal_configs_have_equal_json() -> None:
    whole, fraction = (DecodeConfig(600, guidance_scale=scale) for scale in (4, 4.0))
    assert whole == fraction
    assert json.dumps(whole.to_dict()) == json.dumps(fraction.to_dict())


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_config_is_frozen(config: Any) -> None:
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, getattr(config, name))


@pytest.mark.parametrize("values", [None, [], "text", 3, [["timestep", 600]]])
def test_from_dict_wants_an_object(values: Any) -> None:
    with pytest.raises(ConfigError, match="DecodeConfig must be a JSON object"):
        DecodeConfig.from_dict(values)


def test_from_dict_names_unknown_fields_and_the_accepted_ones() -> None:
    with pytest.raises(ConfigError, match=r"\['eta'\].*accepted.*guidance_scale.*timestep"):
        DecodeConfig.from_dict({"timestep": 600, "eta": 0.5})


def test_from_dict_wants_every_needed_field() -> None:
    with pytest.raises(ConfigError, match="timestep"):
        DecodeConfig.from_dict({"guidance_scale": 1.0})


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (InversionConfig, {"timesteps": ()}, "timesteps"),
        (InversionConfig, {"timesteps": [600]}, "timesteps"),
        (InversionConfig, {"timesteps": 600}, "timesteps"),
        (InversionConfig, {"timesteps": (600, 600)}, "duplicates"),
        (InversionConfig, {"timesteps": (610,)}, "610"),
        (InversionConfig, {"timesteps": (1000,)}, "1000"),
        (InversionConfig, {"timesteps": (-2,)}, "-2"),
        (InversionConfig, {"timesteps": (600.0,)}, "600.0"),
        (InversionConfig, {"timesteps": (True,)}, "True"),
        (InversionConfig, {"timesteps": (0,), "num_inference_steps": 0}, "num_inference_steps"),
        (InversionConfig, {"timesteps": (0,), "num_inference_steps": 1001}, "num_inference_steps"),
        (InversionConfig, {"timesteps": (0,), "num_train_timesteps": 0}, "num_train_timesteps"),
        (InversionConfig, {"timesteps": (0,), "num_train_timesteps": 10}, "num_inference_steps"),
        (InversionConfig, {"timesteps": (0,), "guidance_scale": -1.0}, "guidance_scale"),
        (InversionConfig, {"timesteps": (0,), "guidance_scale": float("nan")}, "guidance_scale"),
        (InversionConfig, {"timesteps": (0,), "guidance_scale": "4"}, "guidance_scale"),
        (InversionConfig, {"timesteps": (0,), "noise_timestep": "both"}, "noise_timestep"),
        (InversionConfig, {"timesteps": (0,), "latent": "median"}, "latent"),
        (InversionConfig, {"timesteps": (0,), "seed": -1}, "seed"),
        (InversionConfig, {"timesteps": (0,), "num_steps": 0}, "num_steps"),
        (InversionConfig, {"timesteps": (0,), "num_steps": 1.0}, "num_steps"),
        (InversionConfig, {"timesteps": (0,), "num_steps": 6, "spacing": "even"}, "spacing"),
        (GroupSamplingConfig, {"method": "best"}, "method"),
        (GroupSamplingConfig, {"seed": 1.0}, "seed"),
        (GroupSamplingConfig, {"num_candidates": 0}, "num_candidates"),
        (GroupSamplingConfig, {"mean_weight": -1.0}, "mean_weight"),
        (GroupSamplingConfig, {"std_weight": float("inf")}, "std_weight"),
        (GroupSamplingConfig, {"skewness_weight": True}, "skewness_weight"),
        (DecodeConfig, {"timestep": -2}, "timestep"),
        (DecodeConfig, {"timestep": True}, "timestep"),
        (DecodeConfig, {"timestep": "600"}, "timestep"),
        (DecodeConfig, {"timestep": 600, "num_inference_steps": 0}, "num_inference_steps"),
        (DecodeConfig, {"timestep": 600, "guidance_scale": float("inf")}, "guidance_scale"),
        (DecodeConfig, {"timestep": 600, "guidance_scale": None}, "guidance_scale"),
        (DecodeConfig, {"timestep": 600, "guidance_scale": 10**400}, "guidance_scale"),
        (DecodeConfig, {"timestep": 600, "reference_off_by_one": 1}, "reference_off_by_one"),
        (ModelReference, {}, "ModelReference"),
        (ModelReference, {"repo_id": "a/b", "revision": "c" * 40, "path": "model"}, "ModelReference"),
        (ModelReference, {"repo_id": "a/b"}, "revision"),
        (ModelReference, {"repo_id": "a/b", "revision": ""}, "revision"),
        (ModelReference, {"repo_id": "a", "revision": "c" * 40}, "repo_id"),
        (ModelReference, {"repo_id": "a/b/c", "revision": "c" * 40}, "repo_id"),
        (ModelReference, {"repo_id": "../b", "revision": "c" * 40}, "repo_id"),
        (ModelReference, {"repo_id": "a/b\n", "revision": "c" * 40}, "repo_id"),
        (ModelReference, {"repo_id": "https://a/b", "revision": "c" * 40}, "repo_id"),
        (ModelReference, {"path": "model", "revision": "c" * 40}, "revision"),
        (ModelReference, {"path": ""}, "path"),
        (ModelReference, {"path": "/model"}, "path"),
        (ModelReference, {"path": "../model"}, "path"),
        (ModelReference, {"path": "a/../../model"}, "path"),
        (ModelReference, {"path": "a\\..\\model"}, "path"),
        (ModelReference, {"path": "C:/model"}, "path"),
        (ModelReference, {"path": "mod\0el"}, "path"),
        (ModelReference, {"path": 5}, "path"),
        (ModelReference, {"path": "."}, "path"),
        (ModelReference, {"path": "model/"}, "path"),
        (ModelReference, {"path": "./model"}, "path"),
    ],
)
def test_values_out_of_range_are_refused(kind: Any, values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        kind(**values)
    assert isinstance(caught.value, D3HRError) and isinstance(caught.value, ValueError)


def test_model_reference_accepts_a_folder_inside_a_folder() -> None:
    assert ModelReference(path="models/dit").path == "models/dit"


def test_check_on_grid_returns_the_timestep() -> None:
    assert [check_on_grid(timestep, 50, 1000) for timestep in (-1, 0, 600, 980)] == [-1, 0, 600, 980]


@pytest.mark.parametrize(
    ("timestep", "nearest"), [(601, "[600, 620]"), (599, "[580, 600]"), (999, "[960, 980]")]
)
def test_check_on_grid_names_the_nearest_timesteps(timestep: int, nearest: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(nearest)):
        check_on_grid(timestep, 50, 1000)


@pytest.mark.parametrize(
    ("steps", "train", "grid"),
    [(1, 10, (-1, 0)), (5, 10, (-1, 0, 2, 4, 6, 8)), (3, 10, (-1, 0, 3, 6)), (4, 4, (-1, 0, 1, 2, 3))],
)
def test_timestep_grid(steps: int, train: int, grid: tuple[int, ...]) -> None:
    assert timestep_grid(steps, train) == grid


def test_grid_has_no_more_steps_than_timesteps() -> None:
    with pytest.raises(ConfigError, match=r"num_inference_steps .*10, not 11"):
        timestep_grid(11, 10)


def test_plain_ddim_is_written_as_before_there_was_a_choice() -> None:
    config = InversionConfig(timesteps=(400,))
    assert config.to_dict() == {
        "timesteps": [400],
        "num_inference_steps": 50,
        "num_train_timesteps": 1000,
        "guidance_scale": 1.0,
        "noise_timestep": "source",
        "latent": "mean",
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "heun"}, "method must be one of"),
        ({"evaluations_per_step": 2}, "must be 1 with method='ddim'"),
        ({"method": "fixed_point", "evaluations_per_step": 0}, "evaluations_per_step must be from 1"),
        ({"method": "fixed_point", "noise_timestep": "target"}, "noise_timestep is of the method 'ddim'"),
        ({"method": "adams", "noise_timestep": "target"}, "noise_timestep is of the method 'ddim'"),
        ({"method": "adams", "evaluations_per_step": 2}, "must be 1 with method='adams'"),
        ({"spacing": "cubic"}, "give num_steps, too"),
        ({"num_steps": 6, "first_timestep": 0}, "counts from the clean end"),
    ],
)
def test_inversion_methods_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InversionConfig(timesteps=(400,), **options)
