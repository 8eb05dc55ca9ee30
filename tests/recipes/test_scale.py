"""A simulated build: every image once whatever fails, and hours that a few lines of arithmetic give, too."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from recipes.common.errors import RecipeError
from recipes.evaluate import scale
from recipes.evaluate.simulated_build import Cluster, Work, simulate
from recipes.tables import model_tables

WORK = Work(images=6_000, chunk_size=100, image_bytes=1e5, chunk_bytes=1e6)  # 60 chunks
CLUSTER = Cluster(workers=4, images_per_second=10.0, start_seconds=0.0)  # 10 s a chunk, 15 chunks each


def test_workers_share_the_chunks_and_nothing_is_lost(tmp_path: Path) -> None:
    outcome = simulate(WORK, CLUSTER, tmp_path)
    assert outcome.hours * 3600 == pytest.approx(150)
    assert outcome.efficiency == pytest.approx(1)
    assert (outcome.failures, outcome.lost_share, outcome.seconds_to_recover) == (0, 0, None)
    assert outcome.images == 6_000


def test_others_make_what_a_slow_worker_does_not_come_to(tmp_path: Path) -> None:
    slow = dataclasses.replace(CLUSTER, slow_share=0.25)
    outcome = simulate(WORK, slow, tmp_path)
    # 3.5 workers' worth: 171 s, and at most the chunk that the slow one is at. By itself it would take 300.
    assert 171 <= outcome.hours * 3600 <= 171 + 20
    assert outcome.efficiency > 0.75
    assert outcome.images == 6_000


def test_slow_storage_holds_up_images_chunks_and_the_merge(tmp_path: Path) -> None:
    outcome = simulate(WORK, dataclasses.replace(CLUSTER, storage_bytes_per_second=2e6), tmp_path)
    # Of 2 MB/s each worker has a fourth: 5 images or half a chunk's file a second.
    assert outcome.merge_seconds == pytest.approx(30)
    assert outcome.hours * 3600 == pytest.approx(15 * (20 + 2) + 30)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_finished_is_found_again_after_failures(tmp_path: Path, seed: int) -> None:
    failing = dataclasses.replace(CLUSTER, hours_between_failures=0.02, start_seconds=5.0, seed=seed)
    outcome = simulate(WORK, failing, tmp_path)
    assert outcome.failures > 0
    assert outcome.images == 6_000
    assert outcome.seconds_to_recover == pytest.approx(5)
    # Each failure costs each worker the chunk it was at, at most, and another start.
    assert 155 < outcome.hours * 3600 <= 155 + outcome.failures * (10 + 5)
    used = outcome.hours * 3600 * 4
    waited = used - 600 - outcome.lost_share * used
    assert 20 <= waited <= 20 + outcome.failures * 4 * (10 + 5)


def test_starting_the_search_for_modes_and_reading_chunks_again_take_time(tmp_path: Path) -> None:
    work = dataclasses.replace(WORK, search_images=400, merge_reads=3)
    cluster = dataclasses.replace(CLUSTER, start_seconds=30.0, storage_bytes_per_second=1e9)
    outcome = simulate(work, cluster, tmp_path)
    assert outcome.merge_seconds == pytest.approx(3 * 60 * 1e6 / 1e9)
    written = 15 * 1e6 * 4 / 1e9
    assert outcome.hours * 3600 == pytest.approx(30 + 10 + 150 + written + outcome.merge_seconds)


def test_chunks_that_never_end_between_failures_are_said(tmp_path: Path) -> None:
    hopeless = dataclasses.replace(CLUSTER, hours_between_failures=1e-6)
    with pytest.raises(RecipeError, match="use smaller chunks"):
        simulate(Work(200, 100, 0, 0), hopeless, tmp_path)


def test_the_recipe_writes_plans_and_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "scale.json"
    arguments = ["--sets", "ImageNet-1K", "--chunk-size", "200000", "--workers", "2", "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["scale", *arguments])
    scale.main()
    results = json.loads(output.read_text(encoding="utf-8"))["results"]["ImageNet-1K"]
    assert results["plan"]["worker_hours"] == pytest.approx(1_281_167 / 233 / 3600)
    assert results["plan"]["artifact_megabytes"] == pytest.approx(434.2, rel=1e-3)  # 2 + 50 + 1 tensors
    assert set(results["workers"]) == {f"200000 images a chunk, {way}" for way in scale.WAYS}
    assert all(row["2"]["images"] == 1_281_167 for row in results["workers"].values())


def test_a_build_that_never_ends_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    hopeless = dataclasses.replace(CLUSTER, hours_between_failures=1e-6)
    assert scale.simulated(Work(200, 100, 0, 0), hopeless) == {}
    outcomes = {"2": {"efficiency": 0.5}, "512": {}}
    monkeypatch.setattr(model_tables, "read", lambda name: {"a set": {"workers": {"all three": outcomes}}})
    assert "| a set | all three | 50 % | does not end |" in model_tables.scale_efficiency()
