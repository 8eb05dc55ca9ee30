"""`d3hr build --moments --membership`, `d3hr merge` and `d3hr forget`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import MOMENTS, STATISTICS
from tests.cli.test_cli import d3hr, fail, succeed
from tests.support.combining import save_pictures
from tests.support.tiny import tiny_pipeline


def _build(scene: Path, images: Path, output: Path, *more: object) -> list[object]:
    sizes = ("--timestep", 400, "--steps", 10, "--image-size", 14, "--batch-size", 1, "--device", "cpu")
    return [
        "build",
        images,
        "--model",
        scene / "model",
        "--output",
        output,
        "--class-order",
        "same",
        *sizes,
        *more,
    ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two artifacts `a` and `b`, and `all`, of the images of both."""
    folder = tmp_path_factory.mktemp("combine")
    tiny_pipeline().save_pretrained(folder / "model")
    for name, numbers in {"a": range(12), "b": range(12, 30), "all": range(30)}.items():
        images = save_pictures(folder / "images" / name, numbers)
        noted = ("--membership", folder / f"{name}.members")
        result = d3hr(*_build(folder, images, folder / name, "--moments", *noted))
        assert result.exit_code == 0, result.output
        assert "the sums behind the statistics are stored, too: 0.0 MB" in result.stderr
        assert f"{name}.members notes which images are behind them" in result.stderr
    return folder


def test_parts_merge_to_the_whole(scene: Path, tmp_path: Path) -> None:
    values = succeed("merge", scene / "a", scene / "b", "--output", tmp_path / "both", "--name", "mine")
    assert values["counts"] == [10, 10, 10]
    both = Artifact.load(tmp_path / "both")
    assert both.info.name == "mine" and both.info.shrinkage == Artifact.load(scene / "all").info.shrinkage
    for name in (STATISTICS, MOMENTS):
        assert (both.folder / name).read_bytes() == (scene / "all" / name).read_bytes()
    assert re.search(r"^sums +stored, 0.0 MB: merges exactly", d3hr("info", both.folder).stdout, re.MULTILINE)
    said = fail(1, "merge", scene / "a", scene / "all", "--output", tmp_path / "x", "--modes", 99)
    assert "--modes 99 asks for more modes than class" in said
    said = fail(1, "merge", scene / "a", "--output", tmp_path / "x")
    assert "1 artifact is given" in said
    said = fail(1, "merge", scene / "a", scene / "b", "--output", tmp_path / "both")
    assert "--output" in said and "is there already" in said
    assert fail(2, "merge", scene / "a", scene / "b")


def test_images_are_forgotten_and_what_cannot_be_is_said(scene: Path, tmp_path: Path) -> None:
    images = save_pictures(tmp_path / "images", [0, 4])
    where = ("--output", tmp_path / "left", "--device", "cpu")
    noted = ("--membership", scene / "all.members")
    result = d3hr(
        "forget", scene / "all", images, *where, *noted, "--new-membership", tmp_path / "left.members"
    )
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'left'}\n"), result.output
    assert "the diffusion model may remember the images" in result.stderr
    assert Artifact.load(tmp_path / "left").info.counts == (9, 9, 10)
    again = ("--output", tmp_path / "no", "--membership-key", scene / "membership.key", "--device", "cpu")
    said = fail(1, "forget", tmp_path / "left", images, *again, "--membership", tmp_path / "left.members")
    assert "2 of 2 images cannot be forgotten" in said and "was forgotten before" in said
    said = fail(1, "forget", scene / "a", images, *again, *noted)
    assert "membership is of an artifact whose moments.safetensors" in said
    assert fail(2, "forget", scene / "all", images, "--output", tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_membership_goes_with_sums_outside_the_artifact(scene: Path, tmp_path: Path) -> None:
    output, images = tmp_path / "out", scene / "images" / "a"
    said = fail(1, *_build(scene, images, output, "--membership", tmp_path / "m"))
    assert "--moments" in said
    said = fail(1, *_build(scene, images, output, "--moments", "--membership", output / "m"))
    assert "is in the folder of the artifact" in said
    said = fail(1, *_build(scene, images, output, "--moments", "--membership-key", tmp_path / "k"))
    assert "goes with membership" in said or "goes with --membership" in said
    assert not output.exists()
