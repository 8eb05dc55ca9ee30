"""Settings by budget in an artifact: what it stores, what it refuses, and a copy that has others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets import Artifact, Budget, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.artifact import copy_with_budgets
from d3hr_datasets.artifact.facts import artifact_facts
from d3hr_datasets.errors import ArtifactFormatError, ArtifactIntegrityError, ConfigError, ExportError
from tests.support.modes import save_artifact_of_modes
from tests.support.tampering import (
    METADATA,
    STATISTICS,
    change_info,
    flip_byte,
    read_document,
    write_document,
)
from tests.support.tiny import tiny_info

DECODE = DecodeConfig(200, 10, 1.0)
SEARCH = GroupSamplingConfig("search", num_candidates=5)
RULES = (Budget(1, DECODE), Budget(4, sampling=SEARCH))


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_rule_is_that_of_the_smallest_budget_that_is_kept() -> None:
    info = tiny_info(budgets=RULES)
    assert [info.budget(ipc) for ipc in (1, 2, 4, 5)] == [RULES[0], RULES[1], RULES[1], None]
    assert tiny_info().budget(1) is None


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        ([Budget(1, DECODE)], "budgets must be a tuple of Budget"),
        (({"max_ipc": 1},), "budgets must be a tuple of Budget"),
        ((Budget(2, DECODE), Budget(2, sampling=SEARCH)), r"budgets\[1\]\.max_ipc is 2, and .* before it 2"),
        ((Budget(2, DECODE), Budget(1, DECODE)), r"budgets\[1\]\.max_ipc is 1"),
        (tuple(Budget(ipc, DECODE) for ipc in range(1, 102)), "101 rules; accepted: at most 100"),
        ((Budget(1, DecodeConfig(300, 10)),), r"budgets\[0\]\.decode\.timestep 300 is not stored"),
        ((Budget(1, DecodeConfig(200, 7)),), r"budgets\[0\]\.decode\.timestep 200 is not on the grid of 7"),
        ((Budget(1, DecodeConfig(0.5, 10, grid="flow")),), r"budgets\[0\]\.decode\.grid is 'flow'"),
        ((Budget(1, sampling=GroupSamplingConfig("modes")),), r"budgets\[0\]\.sampling: .*stores no modes"),
    ],
)
def test_rules_that_do_not_fit_are_refused(budgets: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_info(budgets=budgets)


def test_rules_raise_the_format_and_nothing_else_changes(tiny_artifact: Path, tmp_path: Path) -> None:
    plain = Artifact.load(tiny_artifact)
    assert "budgets" not in read_document(tiny_artifact)["info"]
    made = copy_with_budgets(plain, RULES, tmp_path / "copy")
    document = read_document(made.folder)
    assert document["format"] == 2 and Artifact.load(made.folder).info.budgets == RULES
    assert document["info"].pop("budgets") == [
        {"max_ipc": 1, "decode": DECODE.to_dict()},
        {
            "max_ipc": 4,
            "sampling": {
                "method": "search",
                "num_candidates": 5,
                "mean_weight": 1.0,
                "std_weight": 1.0,
                "skewness_weight": 0.5,
            },
        },
    ]
    assert {**document, "format": 1} == read_document(tiny_artifact)
    assert made.fingerprint != plain.fingerprint
    back = copy_with_budgets(made, [], tmp_path / "back")
    assert back.fingerprint == plain.fingerprint and _digests(back.folder) == _digests(tiny_artifact)


def test_a_copy_leaves_the_artifact_as_it_is(artifact_copy: Path, tmp_path: Path) -> None:
    (artifact_copy / "README.md").write_text("a card")
    artifact = Artifact.load(artifact_copy)
    artifact.write_metadata()
    before = _digests(artifact_copy)
    made = copy_with_budgets(artifact, [{"max_ipc": 1, "decode": {"guidance_scale": 9}}], tmp_path / "copy")
    assert made.info.budgets == (Budget(1, dataclasses.replace(artifact.info.decode, guidance_scale=9.0)),)
    assert _digests(artifact_copy) == before
    assert {**_digests(made.folder), METADATA: before[METADATA]} == before
    made.verify()


def test_a_copy_replaces_nothing(artifact_copy: Path, tmp_path: Path) -> None:
    artifact = Artifact.load(artifact_copy)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(ExportError, match="exists and is no empty folder"):
        copy_with_budgets(artifact, RULES, tmp_path / "full")
    for place in (artifact_copy, artifact_copy / "copy"):
        with pytest.raises(ConfigError, match="give one outside it"):
            copy_with_budgets(artifact, RULES, place)
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot be written"):
        copy_with_budgets(artifact, RULES, tmp_path / "file" / "copy")
    with pytest.raises(ConfigError, match="is not stored"):
        copy_with_budgets(artifact, [Budget(1, DecodeConfig(0, 10))], tmp_path / "copy")
    flip_byte(artifact_copy / STATISTICS)
    with pytest.raises(ArtifactIntegrityError):
        copy_with_budgets(artifact, RULES, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "artifact",
        "file",
        "full",
        "working-directory",
    ]


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        (None, "budgets must be a list"),
        ({"max_ipc": 1}, "budgets must be a list"),
        ([{"max_ipc": 1}], "sets nothing"),
        ([{"max_ipc": 1, "sampling": {"method": "modes"}}], "stores no modes"),
        ([{"max_ipc": 1, "decode": {"guidance_scale": 1.0}}], r"budgets\[0\]\.decode: .*timestep"),
        ([{"max_ipc": 1, "decode": {**DECODE.to_dict(), "timestep": 300}}], "300 is not stored"),
        ([{"max_ipc": 1, "decode": DECODE.to_dict(), "nested": True}], r"unknown fields \['nested'\]"),
        ([{"max_ipc": ipc, "decode": DECODE.to_dict()} for ipc in (5, 5)], "must be larger"),
    ],
)
def test_stored_rules_that_do_not_fit_are_refused(budgets: Any, said: str, artifact_copy: Path) -> None:
    write_document(artifact_copy, {**read_document(artifact_copy), "format": 2})
    change_info(artifact_copy, budgets=budgets)
    with pytest.raises(ArtifactFormatError, match=said):
        Artifact.load(artifact_copy)


def test_format_1_has_no_rules(artifact_copy: Path) -> None:
    change_info(artifact_copy, budgets=[{"max_ipc": 1, "decode": DECODE.to_dict()}])
    with pytest.raises(ArtifactFormatError, match=r"format = 1, but .*budgets"):
        Artifact.load(artifact_copy)


def test_rules_are_told_in_words(tiny_artifact: Path, tmp_path: Path) -> None:
    assert "budgets" not in artifact_facts(Artifact.load(tiny_artifact))
    modes = GroupSamplingConfig("modes", mode_spread=1.5)
    rules = (Budget(1, DECODE), Budget(1000, DECODE, modes), Budget(2000, sampling=GroupSamplingConfig()))
    made = save_artifact_of_modes(tmp_path / "modes", [[3, 1]] * 3, budgets=rules)
    assert artifact_facts(made)["budgets"] == (
        "up to 1 per class: from timestep 200, 10 steps, guidance 1; "
        "up to 1,000 per class: from timestep 200, 10 steps, guidance 1, sampled by modes (mode spread 1.5); "
        "up to 2,000 per class: sampled by moment_matched; "
        "what no rule says, and nested sets: as said of decoding, sampled by modes"
    )
    json.dumps(made.info.to_dict())
