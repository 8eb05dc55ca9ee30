"""Curated sets: the first images of the stored order, the same everywhere, and other sets as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Budget, D3HRDataset, DecodeConfig, GroupSamplingConfig, sample_candidates
from d3hr_datasets.artifact import copy_with_budgets
from d3hr_datasets.artifact.facts import artifact_facts
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.image_sets.distilled_sets import open_artifact
from d3hr_datasets.image_sets.training_set_settings import TrainingSet
from tests.cli.test_cli import fail, succeed
from tests.support.curated import add_order, curation, save_separate_artifact
from tests.support.sets import image_digests

CURATED = GroupSamplingConfig("curated")
Make = Callable[..., D3HRDataset]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return what makes curated sets of an artifact with an order of twelve images a class."""
    folder = save_separate_artifact(tmp_path / "artifact").folder
    add_order(folder)

    def make(ipc: int, **options: Any) -> D3HRDataset:
        return D3HRDataset(
            folder, tmp_path / "cache", ipc, **{"sampling": CURATED, "device": "cpu", **options}
        )

    return make


def test_latents_are_those_of_the_stored_numbers(make: Make) -> None:
    dataset = make(5)
    artifact = dataset.artifact
    for label in range(3):
        modes = artifact.modes(200, label)  # of the timestep that they were chosen under
        expected = sample_candidates(modes, artifact.order()[label, :5], label, mode_spread=1.3)
        assert torch.equal(dataset.sample_latents(label), expected)
        assert torch.equal(make(12).sample_latents(label)[:5], expected)
    kept = make(3, classes=["cat", "ant"])
    assert torch.equal(kept.sample_latents(0), make(3).sample_latents(2))


def test_the_first_images_of_a_set_are_the_smaller_set(make: Make) -> None:
    small, large = make(2), make(12)
    digests = image_digests(large)
    assert image_digests(small) == [digests[12 * label + index] for label in range(3) for index in range(2)]
    nested = {ipc: make(ipc, nested=True) for ipc in (2, 11, 12)}
    all_nested = image_digests(nested[12])
    for ipc in (2, 11):
        found = image_digests(nested[ipc])
        assert found == [all_nested[12 * label + index] for label in range(3) for index in range(ipc)]
    for label in range(3):
        assert torch.equal(nested[12].sample_latents(label), large.sample_latents(label))
        assert torch.equal(nested[2].sample_latents(label), small.sample_latents(label))


def test_images_are_decoded_as_they_were_chosen_unless_asked_otherwise(make: Make) -> None:
    assert make(2).decode == curation().decode == DecodeConfig(200, 10, 1.5)
    assert make(2, sampling=None).decode == DecodeConfig(400, 10, 2.0)
    other = make(2, decode=DecodeConfig(400, 10, 2.0))
    modes = other.artifact.modes(400, 0)
    numbers = other.artifact.order()[0, :2]
    assert torch.equal(other.sample_latents(0), sample_candidates(modes, numbers, 0, mode_spread=1.3))
    assert other.fingerprint != make(2).fingerprint
    assert len(image_digests(other)) == 6


@pytest.mark.parametrize("nested", [False, True])
def test_curated_images_share_the_real_images_of_their_mode(nested: bool, make: Make) -> None:
    dataset = make(12, nested=nested)
    artifact, weights = dataset.artifact, dataset.weights.view(3, 12)
    for label in range(3):
        modes = artifact.modes(200, label)
        drawn = sample_candidates(modes, artifact.order()[label], label, mode_spread=0.0)
        nearest = torch.cdist(drawn.flatten(1), modes.mean[0].flatten(1)).argmin(dim=1)
        masses = torch.zeros(2).index_add(0, nearest, weights[label]) / 12
        torch.testing.assert_close(masses, torch.tensor([0.75, 0.25]))  # 30 and 10 real images
    assert len(weights.unique()) > 1
    small = make(2, nested=nested).weights.view(3, 2)
    torch.testing.assert_close(small.mean(dim=1), torch.ones(3))


def test_curated_images_of_one_gaussian_weigh_alike(tmp_path: Path) -> None:
    folder = save_separate_artifact(tmp_path / "plain", num_modes=1).folder
    add_order(folder, mode_spread=None)
    assert D3HRDataset(folder, tmp_path, 3, sampling=CURATED).weights.tolist() == [1.0] * 9


def test_other_sets_do_not_depend_on_the_order(make: Make, tmp_path: Path) -> None:
    plain = save_separate_artifact(tmp_path / "plain")
    for options in ({}, {"nested": True}, {"sampling": GroupSamplingConfig("moment_matched"), "seed": 3}):
        given: dict[str, Any] = {"sampling": None, **options}
        with_order = make(4, **given)
        without = D3HRDataset(plain, tmp_path / "cache", 4, device="cpu", **given)
        assert with_order.image_folder == without.image_folder
        assert torch.equal(with_order.sample_latents(1), without.sample_latents(1))
    assert "order" not in make(4, sampling=None).cache.settings
    assert make(4).cache.settings["order"] == make(4).artifact.order_fingerprint


def test_sets_of_other_orders_have_other_folders(make: Make) -> None:
    first = make(4)
    add_order(first.artifact.folder, torch.arange(12).repeat(3, 1))
    assert make(4).artifact.fingerprint == first.artifact.fingerprint
    assert make(4).image_folder != first.image_folder


def test_settings_that_say_nothing_do_not_make_another_set(make: Make) -> None:
    given = GroupSamplingConfig("curated", seed=9, num_candidates=5, mode_spread=1.3, std_weight=2.0)
    assert make(4, sampling=given).image_folder == make(4).image_folder


@pytest.mark.parametrize(
    ("ipc", "options", "says"),
    [
        (13, {}, r"ipc must be at most 12 with method='curated', not 13.*'modes'.*--keep"),
        (13, {"nested": True}, "ipc must be at most 12"),
        (2, {"seed": 1}, "seed must be 0 with method='curated', not 1"),
        (
            2,
            {"sampling": GroupSamplingConfig("curated", mode_spread=0.9)},
            r"mode_spread must be 1\.3 .*0\.9",
        ),
        (2, {"decode": DecodeConfig(300, 10)}, "timestep 300 is not stored"),
    ],
)
def test_what_an_order_has_not_is_refused(make: Make, ipc: int, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make(ipc, **options)


def test_artifacts_without_an_order_are_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stores no order .*'moment_matched'.*d3hr curate"):
        D3HRDataset(tiny_artifact, tmp_path, 2, sampling=CURATED)
    where = ("materialize", "--artifact", tiny_artifact, "--root", tmp_path, "--sampling", "curated")
    assert "stores no order of curated images" in fail(1, *where)


def test_curated_is_an_option_of_commands_and_a_source_of_students(make: Make, tmp_path: Path) -> None:
    dataset = make(3)
    folder = dataset.artifact.folder
    where = ("--artifact", folder, "--root", tmp_path / "cache", "--device", "cpu", "--sampling", "curated")
    assert succeed("materialize", "--ipc", 3, *where)["folder"] == str(dataset.image_folder)
    warmer = succeed("materialize", "--ipc", 3, "--guidance-scale", 2, *where)["folder"]
    assert warmer == str(make(3, decode=DecodeConfig(200, 10, 2.0)).image_folder)
    says = "--seed must be 0 with --sampling curated, not 4"
    assert says in fail(1, "materialize", "--ipc", 3, "--seed", 4, *where)
    assert "--ipc must be at most 12" in fail(1, "materialize", "--ipc", 13, *where)
    settings = TrainingSet(dataset="x", source="curated", ipc=3, seed=7, artifact=str(folder))
    opened = open_artifact(settings, tmp_path / "cache")  # other students, the same images
    assert opened.image_folder == dataset.image_folder


def test_a_rule_for_small_sets_may_ask_for_the_order(make: Make, tmp_path: Path) -> None:
    artifact, warmer = make(2).artifact, DecodeConfig(200, 10, 3.0)
    rules = [Budget(2, sampling=CURATED), Budget(4, decode=warmer, sampling=CURATED), Budget(6, warmer)]
    ruled = copy_with_budgets(artifact, rules, tmp_path / "ruled")

    def of(ipc: int, **options: Any) -> tuple[str, DecodeConfig]:
        dataset = D3HRDataset(ruled, tmp_path / "cache", ipc, device="cpu", **options)
        return dataset.sampling.method, dataset.decode

    assert of(2) == ("curated", curation().decode)
    assert of(3) == ("curated", warmer)
    assert of(5) == ("modes", warmer)
    assert of(5, sampling=CURATED) == ("curated", curation().decode)  # the rule is of other images
    assert of(3, sampling=GroupSamplingConfig("modes"), seed=1) == ("modes", warmer)
    settings = TrainingSet(dataset="x", source="default", ipc=2, seed=7, artifact=str(ruled.folder))
    opened = open_artifact(settings, tmp_path / "cache")
    assert (opened.sampling.method, opened.decode, opened.seed) == ("curated", curation().decode, 0)
    with pytest.raises(ConfigError, match="ipc must be at most 12"):
        copy_with_budgets(artifact, [Budget(13, sampling=CURATED)], tmp_path / "longer")


def test_a_rule_of_curated_images_leaves_seeds_epochs_and_growing_sets(make: Make, tmp_path: Path) -> None:
    """They are made by the next rule, if any: what suits chosen images need not suit others."""
    artifact, warmer = make(2).artifact, DecodeConfig(200, 10, 3.0)
    rules = [Budget(2, decode=DecodeConfig(200, 10, 9.0), sampling=CURATED)]
    ruled = copy_with_budgets(artifact, rules, tmp_path / "ruled")
    plain, cache = copy_with_budgets(artifact, [], tmp_path / "plain"), tmp_path / "cache"

    def of(ipc: int, artifact: Any = ruled, **options: Any) -> D3HRDataset:
        return D3HRDataset(artifact, cache, ipc, device="cpu", **options)

    given: list[dict[str, Any]] = [{"seed": 1}, {"resample": "epoch"}, {"nested": True, "seed": 1}]
    for options in given:
        found, without = of(2, **options), of(2, plain, **options)
        assert (found.sampling, found.decode) == (without.sampling, without.decode), options
        assert torch.equal(found.sample_latents(1), without.sample_latents(1))
    assert (of(2).sampling.method, of(2).decode.guidance_scale) == ("curated", 9.0)
    more = copy_with_budgets(artifact, [*rules, Budget(4, decode=warmer)], tmp_path / "more")
    for options in (*given[:2], {"sampling": "modes"}, {"sampling": GroupSamplingConfig("modes")}):
        for ipc in (2, 4):
            assert of(ipc, more, **options).decode == warmer, options
    assert of(2, more, sampling="curated").decode.guidance_scale == 9.0
    assert of(2, more, **given[2]).decode == plain.info.decode
    with pytest.raises(ConfigError, match="seed must be 0"):  # who asks for curated images is told
        of(2, seed=1, sampling=CURATED)
    with pytest.raises(ConfigError, match="of curated images there is one"):
        of(2, resample="epoch", sampling=CURATED)
    where = ("--artifact", ruled.folder, "--root", cache, "--device", "cpu", "--ipc", 2, "--seed", 1)
    assert succeed("materialize", *where)["folder"] == str(of(2, seed=1).image_folder)
    fresh = TrainingSet(
        dataset="x", source="default", ipc=2, seed=7, artifact=str(ruled.folder), resample_every=1
    )
    opened = open_artifact(fresh, cache)
    assert (opened.sampling, opened.decode) == (of(2, seed=7).sampling, artifact.info.decode)
    described = artifact_facts(ruled)["budgets"]
    assert "nested sets, and seeds but 0 and fresh groups in place of curated images: as said" in described


def test_a_rule_decodes_curated_images_from_where_they_were_chosen(make: Make, tmp_path: Path) -> None:
    artifact = make(2).artifact
    partial = [{"max_ipc": 2, "decode": {"guidance_scale": 3}, "sampling": {"method": "curated"}}]
    ruled = copy_with_budgets(artifact, partial, tmp_path / "ruled")
    assert ruled.info.budgets[0].decode == DecodeConfig(200, 10, 3.0)  # others are decoded from 400
    others = [{"max_ipc": 2, "decode": {"guidance_scale": 3}, "sampling": {"method": "modes"}}]
    assert copy_with_budgets(artifact, others, tmp_path / "others").info.budgets[0].decode == DecodeConfig(
        400, 10, 3.0
    )
    rule = Budget(2, DecodeConfig(400, 10, 3.0), CURATED)
    says = r"budgets\[0\]\.decode\.timestep is 400, and .* were chosen at 200"
    with pytest.raises(ConfigError, match=says):
        copy_with_budgets(artifact, [rule], tmp_path / "refused")


def test_there_is_no_other_curated_group_for_another_epoch(make: Make) -> None:
    with pytest.raises(ConfigError, match="of curated images there is one"):
        make(2, resample="epoch")
