"""Rules for sets of few images per class: what one may say, and what people may leave out."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from d3hr_datasets import Budget, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.config.budgets import MAX_BUDGETS, OF_METHOD, complete_budgets, read_budgets
from d3hr_datasets.errors import ConfigError

DECODE = DecodeConfig(400, 10, 2.0, reference_last_step=True)
MODES = GroupSamplingConfig("modes", mode_spread=1.5)


@pytest.mark.parametrize(
    "rule",
    [
        Budget(1, DecodeConfig(200, 10, 1.0)),
        Budget(5, DECODE, GroupSamplingConfig()),
        Budget(10, sampling=MODES),
        Budget(10, DecodeConfig(0.6, 28, grid="flow"), GroupSamplingConfig("search", num_candidates=7)),
    ],
    ids=repr,
)
def test_a_rule_survives_json(rule: Budget) -> None:
    assert read_budgets(json.loads(json.dumps([rule.to_dict()]))) == (rule,)


def test_a_rule_says_all_that_its_method_takes_and_no_seed() -> None:
    assert Budget(3, sampling=MODES).to_dict() == {
        "max_ipc": 3,
        "sampling": {"method": "modes", "mode_spread": 1.5},
    }
    assert Budget(3, sampling=GroupSamplingConfig()).to_dict()["sampling"] == {"method": "moment_matched"}
    fields = {field.name for field in dataclasses.fields(GroupSamplingConfig)} - {"method", "seed"}
    assert fields == {name for names in OF_METHOD.values() for name in names}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_ipc": 0, "decode": DECODE}, "max_ipc must be from 1 to"),
        ({"max_ipc": 2.5, "decode": DECODE}, "max_ipc must be an integer"),
        ({"max_ipc": 1}, "sets nothing"),
        ({"max_ipc": 1, "decode": {"timestep": 400}}, "decode must be a DecodeConfig"),
        ({"max_ipc": 1, "sampling": "modes"}, "sampling must be a GroupSamplingConfig"),
        ({"max_ipc": 1, "sampling": GroupSamplingConfig(seed=1)}, "seed is the user's"),
        (
            {"max_ipc": 1, "sampling": GroupSamplingConfig(mode_spread=1.1)},
            r"take \['mode_spread'\].*nothing",
        ),
        ({"max_ipc": 1, "sampling": GroupSamplingConfig("modes", num_candidates=2)}, r"accepted: \['mode_sp"),
        (
            {"max_ipc": 1, "sampling": GroupSamplingConfig("search", num_candidates=10**12)},
            "sampling.num_candidates must be from 1 to 100000",
        ),
    ],
)
def test_what_is_no_rule_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Budget(**changes)


WHOLE = DECODE.to_dict()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("modes", r"budgets\[1\]: it must be an object"),
        ({"decode": WHOLE}, r"budgets\[1\]\.max_ipc is missing"),
        ({"max_ipc": 2}, r"budgets\[1\]: it sets nothing"),
        ({"max_ipc": 2, "decode": {}}, r"budgets\[1\]\.decode: it says nothing"),
        ({"max_ipc": 2, "sampling": {}}, r"budgets\[1\]\.sampling: it says nothing"),
        ({"max_ipc": 2, "decode": None}, r"budgets\[1\]\.decode: DecodeConfig must be a JSON object"),
        ({"max_ipc": 2, "decode": WHOLE, "ipc": 2}, r"budgets\[1\]: unknown fields \['ipc'\]"),
        ({"max_ipc": 2, "decode": {**WHOLE, "eta": 0}}, r"budgets\[1\]\.decode: .*know \['eta'\]"),
        ({"max_ipc": 2, "decode": {**WHOLE, "timestep": 1.5}}, r"budgets\[1\]\.decode\.timestep must be"),
        ({"max_ipc": 2, "sampling": {"method": "best"}}, r"budgets\[1\]\.sampling\.method must be one of"),
        ({"max_ipc": 2, "sampling": {"method": "search", "seed": 0}}, r"\[1\]\.sampling\.seed is the user's"),
        ({"max_ipc": 2, "sampling": {"method": "search", "mode_spread": 1.1}}, r"take \['mode_spread'\]"),
        ({"max_ipc": 2, "sampling": {"method": "modes", "mode_spread": -1}}, r"sampling\.mode_spread must"),
    ],
)
def test_json_that_is_no_rule_is_refused_by_its_place(rule: Any, said: str) -> None:
    before = {"max_ipc": 1, "decode": WHOLE}
    for read in (read_budgets, lambda values: complete_budgets(values, DECODE, MODES)):
        with pytest.raises(ConfigError, match=said):
            read([before, rule])


def test_a_stored_rule_names_its_method() -> None:
    with pytest.raises(ConfigError, match=r"budgets\[0\]\.sampling\.method is missing"):
        read_budgets([{"max_ipc": 1, "sampling": {"num_candidates": 20_000}}])


@pytest.mark.parametrize("values", [None, {}, "rules", {"max_ipc": 1}])
def test_what_is_no_list_is_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match="budgets must be a list of rules"):
        read_budgets(values)
    with pytest.raises(ConfigError, match="accepted: at most 100"):
        read_budgets([{"max_ipc": 1, "decode": WHOLE}] * (MAX_BUDGETS + 1))


def test_what_people_leave_out_is_as_for_all_sets() -> None:
    given = [
        {"max_ipc": 1, "decode": {"guidance_scale": 5}, "sampling": {"mode_spread": 1}},
        {"max_ipc": 2, "sampling": {"method": "search", "num_candidates": 9}},
        Budget(3, DecodeConfig(200, 10)),
    ]
    assert complete_budgets(given, DECODE, MODES) == (
        Budget(
            1, dataclasses.replace(DECODE, guidance_scale=5.0), GroupSamplingConfig("modes", mode_spread=1.0)
        ),
        Budget(2, sampling=GroupSamplingConfig("search", num_candidates=9)),
        Budget(3, DecodeConfig(200, 10)),
    )
    assert given[0] == {"max_ipc": 1, "decode": {"guidance_scale": 5}, "sampling": {"mode_spread": 1}}
    assert complete_budgets([], DECODE, MODES) == ()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"num_steps": 4}, {"num_steps": 4, "num_inference_steps": None, "spacing": "quadratic"}),
        ({"num_inference_steps": 50}, {"num_steps": None, "num_inference_steps": 50, "spacing": "uniform"}),
        ({"guidance_scale": 2.0}, {"num_steps": 6, "num_inference_steps": None, "spacing": "quadratic"}),
    ],
)
def test_steps_of_a_rule_are_counted_one_way(given: dict[str, Any], kept: dict[str, Any]) -> None:
    decode = DecodeConfig(400, num_inference_steps=None, num_steps=6, spacing="quadratic")
    (rule,) = complete_budgets([{"max_ipc": 1, "decode": given}], decode, GroupSamplingConfig("modes"))
    assert rule.decode is not None
    assert {name: getattr(rule.decode, name) for name in kept} == kept
