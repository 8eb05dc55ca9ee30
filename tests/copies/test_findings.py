"""What is said of near copies: verdicts, images by name, what was compared; from JSON and back."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from d3hr_datasets.copies.comparisons import MEASURES, compare_nearness
from d3hr_datasets.copies.findings import CopyFindings
from d3hr_datasets.copies.nearness import measure_nearness
from tests.copies.sets import (
    HELD_OUT,
    HELD_OUT_LABELS,
    NAMES,
    TRAINING,
    findings,
    images,
    odds,
)


@pytest.mark.parametrize("number", [1, 2])
def test_a_few_copies_are_named_where_their_number_tells_nothing(number: int) -> None:
    generated, labels = images(20, 2)
    honest = findings(generated, labels)
    places = [7, 45][:number]
    planted = generated.clone()
    planted[places] = TRAINING[[9, 222][:number]]
    found = findings(planted, labels)
    assert found.exceeds is False and set(found.named()) - set(honest.named()) == set(places)
    needed = odds(found.spaces["pixels"]["ratio"]).needed
    assert f"fewer than {needed} copies among the 60 images, spread over the classes" in found.verdict()
    assert "nearer to a training image than all 300 held-out images are" in found.verdict()
    named = ", ".join(map(str, found.named()))
    assert f"number {named}. Look at the pairs" in found.verdict()
    blurred = dataclasses.replace(honest, within_vae=(3, 59))  # no nearer than held-out ones, and copies
    assert {3, 59} <= set(blurred.named()) and {3, 59} <= set(blurred.named("pixels"))
    assert set(blurred.named("features")) <= set(honest.named())
    many = dataclasses.replace(honest, within_vae=tuple(range(40)))
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 30 more" in many.verdict()


def test_the_share_that_is_near_by_chance_is_said() -> None:
    """Of few held-out images of a class it is not a hundredth; classes may differ."""
    found = findings(*images(2, 4))
    assert "all but the nearest 1% of the others of its class" in found.compared()
    assert "(by chance 0.99 % of images are)" in found.compared()
    few = torch.cat([torch.arange(5), torch.arange(100, 200), torch.arange(200, 300)])
    both = measure_nearness(HELD_OUT[few], [TRAINING], len(TRAINING))
    comparison = compare_nearness(both, HELD_OUT_LABELS[few], both, HELD_OUT_LABELS[few], NAMES)
    assert odds(comparison["pixels"]["ratio"]).shares == pytest.approx((1 / 101, 1 / 6))
    found = dataclasses.replace(found, spaces=comparison)
    assert "(by chance 0.99 % to 17 %, by class, of images are)" in found.compared()


def test_of_training_images_that_are_left_out_nothing_is_said_of_chance() -> None:
    """They are one another's neighbours: of an honest set more than a hundredth would be called near."""
    found = findings(*images(20, 2), reference="leave one out")
    assert found.exceeds is None
    assert all(comparison.odds is None for _, _, comparison in found.comparisons())
    assert found.verdict().startswith("No verdict: generated images were compared with training images, each")
    assert [row[-3:] for row in found.rows()] == [["not told"] * 3] * 4
    assert CopyFindings.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    planted = images(20, 2)[0]
    planted[4] = TRAINING[9]
    assert 4 in findings(planted, images(20, 2)[1], reference="leave one out").named()


def test_held_out_images_that_are_training_images_are_said() -> None:
    found = findings(*images(2, 4), num_shared=3)
    assert "3 of the 300 held-out images are training images, pixel by pixel: they hide" in found.verdict()
    assert "they hide" not in findings(*images(2, 4)).verdict()


def test_findings_come_back_from_json_or_are_refused() -> None:
    found = findings(*images(2, 4))
    written = json.loads(json.dumps(found.to_dict()))
    assert CopyFindings.from_dict(written) == found
    assert CopyFindings.from_dict(written).rows() == found.rows()
    ratio = written["spaces"]["pixels"]["ratio"]
    of_chance = ratio["odds"]
    for place, key, value in [
        (written, "reference", "nothing"),
        (written, "num_training", "many"),
        (written, "teacher", 3),
        (written["spaces"], "other", {}),
        (written, "spaces", {}),
        (written, "spaces", {"features": written["spaces"]["features"]}),
        (written, "within_vae", "all"),
        (written, "within_vae", [-1]),
        (written, "num_shared", None),
        (written, "reference", "leave one out"),
        (ratio, "odds", None),
        (ratio, "nearest", [0.5]),
        (ratio, "num_near", -1),
        (ratio, "num_images", 0),
        (of_chance, "exceeds", "yes"),
        (of_chance, "shares", [0.01]),
        (of_chance, "needed", 1.5),
        (ratio, "medians", [1]),
    ]:
        before = dict(place)
        place[key] = value
        with pytest.raises((TypeError, ValueError, KeyError)):
            CopyFindings.from_dict(written)
        place.clear()
        place.update(before)
    assert CopyFindings.from_dict(written) == found
    del of_chance["p_value"]
    with pytest.raises(KeyError):
        CopyFindings.from_dict(written)


def test_what_was_compared_is_said() -> None:
    found = findings(*images(2, 4))
    text = found.compared()
    assert "6 generated images and 300 held-out images" in text and "the teacher halves" in text
    assert "were not given" not in text
    other = dataclasses.replace(found, teacher=None, num_behind=301, reference="leave one out")
    assert "in pixels only, as no teacher was given" in other.compared()
    assert "built from 301 images: copies of those that were not given are not found" in other.compared()
    assert "training images, each compared with the others" in other.compared()
    assert len(found.rows()) == 2 * len(MEASURES)
    assert all(math.isfinite(cell) for row in found.rows() for cell in row[1:-1])
