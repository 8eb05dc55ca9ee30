"""`d3hr build --epsilon --delta`: what is said and written, and what is refused in the words of options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d3hr_datasets import Artifact
from tests.cli.test_cli import d3hr, fail
from tests.support.combining import save_pictures
from tests.support.tiny import CLASSES, tiny_pipeline


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    tiny_pipeline().save_pretrained(folder / "model")
    save_pictures(folder / "images", range(12))
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    return folder


def _build(scene: Path, output: Path, *more: object) -> list[object]:
    sizes: tuple[object, ...] = ("--timestep", 400, "--steps", 10, "--image-size", 14, "--device", "cpu")
    sizes = (*sizes, "--class-list", scene / "classes.json")
    return ["build", scene / "images", "--model", scene / "model", "--output", output, *sizes, *more]


def test_a_budget_is_spent_and_it_is_said(scene: Path, tmp_path: Path) -> None:
    result = d3hr(*_build(scene, tmp_path / "out", "--epsilon", 3, "--delta", "1e-6"))
    assert result.exit_code == 0, result.output
    assert "d3hr: this build spends epsilon 3 and delta 1e-06 for each image, once" in result.stderr
    privacy = Artifact.load(tmp_path / "out").info.privacy
    assert privacy is not None and (privacy.epsilon, privacy.delta) == (3.0, 1e-6)
    said = d3hr("info", tmp_path / "out").stdout
    assert "epsilon 3, delta 1e-06, for one image added or removed" in said and "about " in said
    assert "give a new --output" in fail(
        1, *_build(scene, tmp_path / "out", "--epsilon", 3, "--delta", "1e-6")
    )


def test_halves_of_a_budget_and_what_says_more_are_refused(scene: Path, tmp_path: Path) -> None:
    both = ("--epsilon", 3, "--delta", "1e-6")
    for more, said in (
        (("--epsilon", 3), "give both"),
        (("--delta", 1e-6), "give both"),
        (("--epsilon", 0, "--delta", "1e-6"), "--epsilon must be above 0"),
        ((*both, "--modes", 2), "--modes 2 does not go with privacy"),
        ((*both, "--moments"), "does not go with privacy"),
        ((*both, "--timestep", 200), "and with privacy there is one"),
        ((*both, "--latent", "sample"), "does not go with privacy"),
        ((*both, "--shrinkage", 0.5), "--shrinkage 0.5 does not go with privacy"),
    ):
        assert said in fail(1, *_build(scene, tmp_path / "out", *more)), more
    assert not list(tmp_path.glob("out*"))
