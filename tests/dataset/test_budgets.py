"""A set takes the settings that its artifact has for its size, unless the user says otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets import Artifact, Budget, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.artifact import copy_with_budgets
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.image_sets.distilled_sets import open_artifact
from d3hr_datasets.image_sets.training_set_settings import TrainingSet
from tests.cli.test_cli import succeed
from tests.support.sets import image_digests, tiny_set

DECODE = DecodeConfig(200, 10, 1.0)
SEARCH = GroupSamplingConfig("search", num_candidates=5)
BOTH = Budget(3, DECODE, SEARCH)


@pytest.fixture(scope="module")
def ruled(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny artifact with rules for sets of one, and of two or three images per class."""
    rules = [Budget(1, DECODE), BOTH]
    folder = tmp_path_factory.mktemp("ruled") / "artifact"
    return copy_with_budgets(Artifact.load(tiny_artifact), rules, folder).folder


def test_a_set_takes_the_rule_of_its_size(ruled: Path, tmp_path: Path) -> None:
    plain, matched = Artifact.load(ruled).info.decode, GroupSamplingConfig(seed=7)
    search = dataclasses.replace(SEARCH, seed=7)
    found = {}
    for ipc in (1, 2, 3, 4):
        dataset = tiny_set(ruled, tmp_path, ipc, seed=7)
        found[ipc] = dataset.sampling, dataset.decode
    assert found == {1: (matched, DECODE), 2: (search, DECODE), 3: (search, DECODE), 4: (matched, plain)}


def test_what_the_user_says_wins_whole_and_each_on_its_own(ruled: Path, tmp_path: Path) -> None:
    plain, matched = Artifact.load(ruled).info.decode, GroupSamplingConfig()
    decoded = tiny_set(ruled, tmp_path, 2, decode=plain)
    assert (decoded.sampling, decoded.decode) == (SEARCH, plain)
    sampled = tiny_set(ruled, tmp_path, 2, sampling=matched)
    assert (sampled.sampling, sampled.decode) == (matched, DECODE)
    both = tiny_set(ruled, tmp_path, 2, sampling=matched, decode=plain)
    assert (both.sampling, both.decode) == (matched, plain)


def test_a_rule_makes_the_images_that_its_settings_make(
    ruled: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    by_rule = image_digests(tiny_set(ruled, tmp_path / "rule", 2))
    said = image_digests(tiny_set(tiny_artifact, tmp_path / "said", 2, sampling=SEARCH, decode=DECODE))
    assert by_rule == said != image_digests(tiny_set(tiny_artifact, tmp_path / "plain", 2))


def test_a_nested_set_does_not_change_its_settings_when_it_grows(ruled: Path, tmp_path: Path) -> None:
    sets = [tiny_set(ruled, tmp_path, ipc, nested=True) for ipc in (1, 2, 4)]
    assert {(one.sampling, one.decode) for one in sets} == {
        (GroupSamplingConfig(), Artifact.load(ruled).info.decode)
    }
    assert len({one.fingerprint for one in sets}) == 1
    small, large = image_digests(sets[0]), image_digests(sets[2])
    assert small == large[::4]


def test_students_see_the_images_of_the_rule(ruled: Path, tmp_path: Path) -> None:
    wanted = TrainingSet(dataset="fashion-mnist", source="default", ipc=2, artifact=str(ruled))
    default = open_artifact(wanted, tmp_path)
    assert (default.sampling, default.decode) == (SEARCH, DECODE)
    changed = open_artifact(dataclasses.replace(wanted, guidance_scale=3.0), tmp_path)
    assert changed.decode == dataclasses.replace(DECODE, guidance_scale=3.0)
    matched = open_artifact(dataclasses.replace(wanted, source="moment_matched"), tmp_path)
    assert (matched.sampling, matched.decode) == (GroupSamplingConfig(), DECODE)


def test_a_method_by_its_name_is_as_the_artifact_has_it(ruled: Path, tmp_path: Path) -> None:
    named = {ipc: tiny_set(ruled, tmp_path, ipc, sampling="search").sampling for ipc in (1, 2, 4)}
    plain = GroupSamplingConfig("search")
    assert named == {1: plain, 2: SEARCH, 4: plain}
    assert tiny_set(ruled, tmp_path, 2, sampling="search", nested=True).sampling == plain
    given = tiny_set(ruled, tmp_path, 2, sampling=plain)  # what is written out is taken as it is
    assert (given.sampling, given.decode) == (plain, DECODE)
    by_command = ("materialize", "--artifact", ruled, "--root", tmp_path, "--ipc", 2, "--device", "cpu")
    folder = succeed(*by_command, "--sampling", "search")["folder"]
    assert folder == str(tiny_set(ruled, tmp_path, 2).image_folder)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sampling": "mode"}, r"method.*'mode'"),
        (
            {"sampling": {"method": "search"}},
            r"sampling must be a GroupSamplingConfig or the name of a method",
        ),
        ({"decode": {"guidance_scale": 2.0}}, r"decode must be a DecodeConfig.*dataclasses\.replace"),
    ],
)
def test_what_are_no_settings_is_refused(
    options: dict[str, Any], says: str, ruled: Path, tmp_path: Path
) -> None:
    for resample in ("never", "epoch"):
        with pytest.raises(ConfigError, match=says):
            tiny_set(ruled, tmp_path, 2, resample=resample, **options)
