"""The script that says what builds to a stated precision cost and lose, on few images."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from recipes.evaluate import tolerance
from tests.support.combining import save_pictures
from tests.support.tiny import CLASSES, tiny_pipeline


def test_imagenet_is_computed_of_the_sizes_of_its_classes() -> None:
    assert tolerance.imagenet_images(700) == (700_000, 700_000)
    assert tolerance.imagenet_images(1300) == (1_281_167, 1_281_167)
    assert tolerance.imagenet_images(10_000) == (1_281_167, 1_281_167)
    least, most = tolerance.imagenet_images(1112)
    assert most == 1_112_000 and 1_099_000 < least < 1_100_000
    costs = tolerance.imagenet_costs(0.03, 1)
    assert costs["images_a_class_takes"] == 1112 and costs["images"] == [least, most]
    assert tolerance.imagenet_costs(0.03, 50)["share_of_all_images"] == [1.0, 1.0]


def test_builds_are_compared_with_that_of_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    save_pictures(tmp_path / "images", range(60))
    (tmp_path / "list.json").write_text(json.dumps([name.replace("/", "_") for name in CLASSES]))
    output = tmp_path / "tolerance.json"
    given = ["--source", tmp_path / "images", "--model", tmp_path / "model", "--work", tmp_path / "work"]
    given += ["--class-list", tmp_path / "list.json", "--image-size", 14, "--steps", 10, "--output", output]
    given += ["--tolerances", 0.35, 0.1, "--modes", 2]
    monkeypatch.setattr("sys.argv", ["tolerance", *map(str, given)])
    tolerance.main()
    builds = json.loads(output.read_text())["results"]["builds"]
    assert builds["all images"] == {"images": 60}
    loose, tight = builds["35 %"], builds["10 %"]
    assert 27 <= loose["images"] < 60 and loose["classes_that_fell_short"] == 0
    assert loose["expected_error_of_class_means"] <= round(math.sqrt(1 / 9 - 1 / 20), 5)
    assert 0 < loose["error_of_means"]["classes"] < 3 * loose["expected_error_of_class_means"]
    assert loose["error_of_means"]["modes"] > 0
    assert tight["images"] == 60 and tight["classes_that_fell_short"] == 3
    assert max(tight["error_of_means"].values()) < 1e-6 and tight["expected_error_of_class_means"] == 0
