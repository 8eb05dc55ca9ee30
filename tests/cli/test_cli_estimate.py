"""`d3hr build --tolerance`, and `--estimate` of `d3hr build` and `d3hr materialize`, which writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d3hr_datasets import Artifact
from tests.cli.test_cli import d3hr, fail, succeed
from tests.support.combining import save_pictures
from tests.support.tiny import CLASSES, tiny_pipeline


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `model`, `images`, 20 of each class, and the model's classes."""
    folder = tmp_path_factory.mktemp("estimate")
    tiny_pipeline().save_pretrained(folder / "model")
    save_pictures(folder / "images", range(60))
    (folder / "list.json").write_text(json.dumps([name.replace("/", "_") for name in CLASSES]))
    return folder


def _arguments(scene: Path, output: Path, *more: object) -> list[object]:
    given = [scene / "images", "--model", scene / "model", "--output", output, "--class-list"]
    settings = ["--timestep", 400, "--steps", 10, "--image-size", 14, "--device", "cpu", "--modes", 1]
    return ["build", *given, scene / "list.json", *settings, *more]


def test_a_build_stops_and_says_so(scene: Path, tmp_path: Path) -> None:
    result = d3hr(*_arguments(scene, tmp_path / "set", "--tolerance", 0.35))
    assert result.exit_code == 0, result.output
    note = "27 of 60 images are inverted: the mean of a class takes 9 to be known to 35 % of its spread"
    assert note in result.stderr
    assert Artifact.load(tmp_path / "set").info.counts == (9, 9, 9)
    said = " ".join(d3hr("info", tmp_path / "set").stdout.split())
    assert "precision 27 of 60 images were used, chosen at random" in said


def test_tolerances_that_cannot_be_kept_are_refused(scene: Path, tmp_path: Path) -> None:
    said = fail(1, *_arguments(scene, tmp_path / "set", "--tolerance", 3))
    assert "--tolerance must be a share of the spread of a class" in said
    assert not (tmp_path / "set").exists()


def test_what_a_build_costs_is_said_before_it_starts(scene: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    values = succeed(*_arguments(scene, tmp_path / "set", "--estimate", "--batch-size", 4))
    assert values["num_images"] == 60 and values["images"] == [60, 60]
    assert values["forward_passes_per_image"] == 5  # 10 steps to 1000, 5 of them to 400 from no noise
    assert values["forward_passes"] == [300, 300]
    assert values["hours"][0] == values["hours"][1] > 0 and values["seconds_per_image"] > 0
    assert values["batch_size"] == 4 and values["device"] == "cpu" and values["gpu_bytes"] is None
    assert values["process_bytes"] > 1e7
    model = sum(path.stat().st_size for path in (scene / "model").rglob("*") if path.is_file())
    assert values["disk_bytes"]["copy of the model"] == model
    assert values["disk_bytes"]["statistics"] == 2 * 2 * 3 * 48
    assert sorted(tmp_path.rglob("*")) == before


def test_with_a_tolerance_it_says_at_least_and_at_most(scene: Path, tmp_path: Path) -> None:
    more = ("--tolerance", 0.35, "--modes", 2, "--moments", "--membership", tmp_path / "noted")
    values = succeed(*_arguments(scene, tmp_path / "set", "--estimate", "--batch-size", 2, *more))
    assert values["images"] == [27, 60] and values["hours"][0] < values["hours"][1]
    assert values["disk_bytes"]["centroids of modes, meanwhile"] == 2 * 4 * 3 * 2 * 48
    assert {"sums", "membership"} <= values["disk_bytes"].keys()
    assert not (tmp_path / "noted").exists() and not (tmp_path / "membership.key").exists()


def test_what_a_set_costs_is_said_before_it_starts(tiny_artifact: Path, tmp_path: Path) -> None:
    given = ("materialize", "--artifact", tiny_artifact, "--ipc", 2, "--root", tmp_path / "root")
    values = succeed(*given, "--device", "cpu", "--estimate")
    assert values["num_images"] == 6 and values["images"] == [6, 6] and values["batch_size"] == 6
    assert values["forward_passes_per_image"] == 10  # 5 steps, with guidance
    assert values["disk_bytes"]["PNG files"] > 6 * 50
    assert not (tmp_path / "root").exists()
    text = d3hr(*given, "--device", "cpu", "--estimate").stdout
    assert (
        "6 of 6 are generated" in text
        and "10 per image, 60 in all" in text
        and "seconds by 1 process" in text
    )
    succeed(*given, "--device", "cpu")
    values = succeed(*given, "--device", "cpu", "--estimate")
    assert values["images"] == [0, 0] and values["disk_bytes"] == {"PNG files": 0}


def test_of_nested_sets_what_is_copied_is_not_made(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("materialize", "--artifact", tiny_artifact, "--root", tmp_path, "--nested", "--device", "cpu")
    values = succeed(*given, "--ipc", 12, "--estimate")
    assert values["images"] == [36, 36]
    assert values["batch_size"] == 36 and values["forward_passes"] == [360, 360]
    succeed(*given, "--ipc", 11)
    values = succeed(*given, "--ipc", 12, "--estimate")
    assert values["images"] == [3, 3] and values["batch_size"] == 3
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        result = d3hr(*given, "--ipc", 12, "--estimate", "--json")
        assert result.exit_code == 0
    assert result.stdout == ""  # the first process has said it
