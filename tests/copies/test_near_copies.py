"""Near copies: planted ones are found and honest sets are not called so; neighbours are exact."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats

from d3hr_datasets.copies import exceedances, neighbours
from d3hr_datasets.copies.exceedances import count_exceedances, exceedance_law
from d3hr_datasets.copies.findings import CHANCE, MEASURES, CopyFindings, compare_nearness
from d3hr_datasets.copies.nearness import Nearness, measure_nearness
from d3hr_datasets.copies.neighbours import NeighbourSearch
from d3hr_datasets.errors import ConfigError

NAMES = ("ant", "bee", "cat")
SHAPE = (1, 8, 8)


def images(per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise around a brightness of each class, and a noise that differs by class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(per_class)
    noise = torch.randn(len(labels), *SHAPE, generator=generator) * (10 + 15 * labels[:, None, None, None])
    return (60 + 60 * labels[:, None, None, None] + noise).clamp(0, 255).to(torch.uint8), labels


TRAINING, TRAINING_LABELS = images(100, 0)
HELD_OUT, HELD_OUT_LABELS = images(100, 1)


def halves(batch: torch.Tensor) -> torch.Tensor:
    """Stand for a teacher: features of which an image without contrast has few."""
    return batch.flatten(1).float()[:, :40] - 50


def findings(generated: torch.Tensor, labels: torch.Tensor, **changes: Any) -> CopyFindings:
    """Return what is found of images beside the held-out ones."""
    both = torch.cat([generated, HELD_OUT])
    found = measure_nearness(both, TRAINING.split(70), len(TRAINING), halves)
    mine, others = (
        {space: near.part(*places) for space, near in found.items()}
        for places in ((0, len(generated)), (len(generated), len(both)))
    )
    values: dict[str, Any] = {
        "reference": "held out",
        "num_training": len(TRAINING),
        "num_behind": len(TRAINING),
        "num_reference": len(HELD_OUT),
        "num_neighbours": 50,
        "teacher": "halves",
        "spaces": compare_nearness(mine, labels, others, HELD_OUT_LABELS, NAMES),
    }
    return CopyFindings(**{**values, **changes})


def exact(copied: torch.Tensor) -> torch.Tensor:
    return copied


def noised(copied: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(copied.shape, generator=torch.Generator().manual_seed(3)) * 3
    return (copied.float() + noise).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("copy", [exact, noised])
def test_planted_copies_are_told(copy: Callable[[torch.Tensor], torch.Tensor]) -> None:
    generated, labels = images(20, 2)
    assert not findings(generated, labels).exceeds
    planted = generated.clone()
    planted[10:13], planted[50:53] = copy(TRAINING[3:6]), copy(TRAINING[250:253])
    found = findings(planted, labels)
    for space in ("pixels", "features"):
        comparison = found.spaces[space]["ratio"]
        assert comparison.exceeds and comparison.num_near >= 6 and comparison.num_images == 60
        assert comparison.p_value < 1e-3
        assert comparison.expected == pytest.approx(60 / 101)
    assert found.verdict().startswith("More near copies of training images than among held-out images")
    assert f"ratio: {found.spaces['pixels']['ratio'].num_near} of 60 images, 0.6 expected" in found.verdict()


def test_copies_in_one_class_of_many_are_told() -> None:
    """What three of thousands of images are, the test of a class alone still sees."""
    generator = torch.Generator().manual_seed(0)
    names = [f"class {label}" for label in range(200)]
    labels = torch.arange(200).repeat_interleave(10)
    values, others = (torch.rand(2000, generator=generator, dtype=torch.float64) + 0.5 for _ in range(2))

    def found(values: torch.Tensor) -> Any:
        sets = [{"pixels": Nearness(part, part, labels)} for part in (values, others)]
        return compare_nearness(sets[0], labels, sets[1], labels, names)["pixels"]["ratio"]

    assert not found(values).exceeds
    values[70:80] = 0.01  # as many as the class has, of 2,000
    assert found(values).classes == ("class 7",) and found(values).exceeds
    assert found(values).p_value > 0.01  # over all classes, ten more are none


def test_plain_images_are_near_and_no_copies() -> None:
    """Images with half of the noise are nearer to all training images; none of these stands out."""
    generated, labels = images(20, 2)
    brightness = 60 + 60 * labels[:, None, None, None]
    plain = (brightness + 0.5 * (generated.float() - brightness)).to(torch.uint8)
    found = findings(plain, labels)
    pixels = {space: comparisons for space, comparisons in found.spaces.items() if space == "pixels"}
    found = dataclasses.replace(found, spaces=pixels)
    assert pixels["pixels"]["distance"].num_near > 50 and pixels["pixels"]["distance"].exceeds
    assert not pixels["pixels"]["ratio"].exceeds
    assert found.verdict().startswith("Nearer to training images than held-out images are, though single")


def test_honest_sets_are_seldom_called_copiers() -> None:
    """Of 200 sets drawn as held-out images are, even of ten images, at most a few are."""
    called = 0
    generator = torch.Generator().manual_seed(0)
    labels, other_labels = torch.arange(10), torch.arange(10).repeat_interleave(30)
    for _ in range(200):
        sets = [
            {"pixels": Nearness(values, values, torch.zeros(len(values)).long())}
            for values in (
                torch.rand(number, generator=generator, dtype=torch.float64) for number in (10, 300)
            )
        ]
        found = compare_nearness(sets[0], labels, sets[1], other_labels, [str(label) for label in range(10)])
        called += any(comparison.exceeds for comparison in found["pixels"].values())
    assert called <= 200 * CHANCE + 3


def test_neighbours_are_exact_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "AT_ONCE", 7)
    expected = (HELD_OUT.flatten(1).double()[:, None] - TRAINING.flatten(1).double()[None]).square().sum(2)
    for size in (1, 13, 300):
        search = NeighbourSearch(HELD_OUT, 5)
        for block in TRAINING.split(size):
            search.add(block)
        assert torch.equal(search.squared, expected.sort(dim=1).values[:, :5])
        assert torch.equal(search.nearest, expected.argmin(dim=1))
    twice = NeighbourSearch(TRAINING[:2], 2)
    for block in (TRAINING[5:9], TRAINING[:2], TRAINING[:2]):
        twice.add(block)
    assert twice.nearest.tolist() == [4, 5]  # the first of equal ones
    assert twice.squared.tolist() == [[0, 0], [0, 0]]


def test_an_image_is_not_its_own_neighbour() -> None:
    training = TRAINING.clone()
    training[7] = training[90]  # a copy within the training set is one
    both = torch.cat([HELD_OUT[:1], training])
    own = torch.cat([torch.tensor([-1]), torch.arange(len(training))])
    found = measure_nearness(both, training.split(33), len(training), own=own)["pixels"]
    alone = measure_nearness(HELD_OUT[:1], [training], len(training))["pixels"]
    assert found.nearest[0] == alone.nearest[0] and found.distance[0] == alone.distance[0]
    assert (found.distance == 0).nonzero().flatten().tolist() == [8, 91]
    assert found.nearest[8] == 90 and found.nearest[91] == 7
    assert found.ratio[8] == 0
    assert (found.distance[1:] > 0).sum() == len(training) - 2


def test_units_are_those_that_are_said() -> None:
    first, second = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 3, 4, 4), 30).to(torch.uint8)
    training = torch.cat([second, second + 30])
    found = measure_nearness(first, [training], 2, lambda batch: batch.flatten(1).float()[:, :2] + 1)
    assert found["pixels"].distance.tolist() == pytest.approx([30])
    assert found["pixels"].ratio.tolist() == pytest.approx([30 / 45])
    assert found["features"].distance.tolist() == pytest.approx([0], abs=1e-7)  # of unit length
    large = torch.zeros(1, 1, 200, 100, dtype=torch.uint8)
    found = measure_nearness(large, [torch.cat([large + 9, large + 11])], 2)
    assert found["pixels"].distance.tolist() == pytest.approx([9])  # of small copies of them, per pixel


def test_images_of_other_shapes_are_refused() -> None:
    for other in (TRAINING[:, :, :6, :6], TRAINING.expand(-1, 3, -1, -1)):
        with pytest.raises(ConfigError, match=r"\(1, 8, 8\).*\((1, 6, 6|3, 8, 8)\)"):
            measure_nearness(HELD_OUT, [other], len(other))
        with pytest.raises(ConfigError, match="cannot be compared"):
            NeighbourSearch(HELD_OUT, 1).add(other)
    with pytest.raises(ConfigError, match=r"there are 1 training images.* at least 2"):
        measure_nearness(HELD_OUT, [TRAINING[:1]], 1)
    with pytest.raises(ConfigError, match=r"there are 2 training images.* at least 3"):
        measure_nearness(TRAINING[:2], [TRAINING[:2]], 2, own=torch.arange(2))
    with pytest.raises(ConfigError, match="label 2 has generated images and no held-out image"):
        count_exceedances(torch.rand(3), torch.arange(3), torch.rand(2), torch.arange(2))


@pytest.mark.parametrize(("number", "rank", "held_out"), [(10, 1, 12), (100, 10, 1000), (1, 3, 3)])
def test_the_law_of_exceedances_is_beta_binomial(number: int, rank: int, held_out: int) -> None:
    law = exceedance_law(number, rank, held_out)
    expected = stats.betabinom(number, rank, held_out + 1 - rank).pmf(range(number + 1))
    assert law.tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    assert law.sum() == pytest.approx(1)


def test_the_threshold_is_a_hundredth_of_the_held_out_images_of_a_class() -> None:
    held_out = torch.cat([torch.arange(200.0), 1000 + torch.arange(200.0)])
    labels = torch.arange(2).repeat_interleave(200)
    found = count_exceedances(
        torch.tensor([1.0, 1.5, 999.0, 1002.0]), torch.tensor([0, 0, 1, 1]), held_out, labels
    )
    assert found.near.tolist() == [True, False, True, False]  # at most 1, the second of 200; at most 1001
    assert found.expected == pytest.approx(4 * 2 / 201)
    law = stats.betabinom(2, 2, 199)
    assert found.class_p_values == pytest.approx({0: law.sf(0), 1: law.sf(0)})
    both = 1 - law.pmf(0) ** 2 - 2 * law.pmf(0) * law.pmf(1)  # two or more of both classes together
    assert found.p_value == pytest.approx(both)
    assert exceedances.NEAR == 0.01
    same = torch.zeros(50)  # nothing is told by measures that are all the same
    assert count_exceedances(same, same.long(), torch.zeros(500), torch.zeros(500).long()).p_value > 0.5


def test_findings_come_back_from_json_or_are_refused() -> None:
    found = findings(*images(2, 4))
    written = json.loads(json.dumps(found.to_dict()))
    assert CopyFindings.from_dict(written) == found
    assert CopyFindings.from_dict(written).rows() == found.rows()
    ratio = written["spaces"]["pixels"]["ratio"]
    for place, key, value in [
        (written, "reference", "nothing"),
        (written, "num_training", "many"),
        (written, "teacher", 3),
        (written["spaces"], "other", {}),
        (ratio, "num_near", -1),
        (ratio, "num_images", 0),
        (ratio, "exceeds", "yes"),
        (ratio, "medians", [1]),
    ]:
        before = dict(place)
        place[key] = value
        with pytest.raises((TypeError, ValueError, KeyError)):
            CopyFindings.from_dict(written)
        place.clear()
        place.update(before)
    assert CopyFindings.from_dict(written) == found
    del ratio["p_value"]
    with pytest.raises(KeyError):
        CopyFindings.from_dict(written)


def test_what_was_compared_is_said() -> None:
    found = findings(*images(2, 4))
    text = found.compared()
    assert "6 generated images and 300 held-out images" in text and "the teacher halves" in text
    assert "nearer to a training image than 99% of the others of its class" in text
    assert "were not given" not in text
    other = dataclasses.replace(found, teacher=None, num_behind=301, reference="leave one out")
    assert "in pixels only, as no teacher was given" in other.compared()
    assert "built from 301 images: copies of those that were not given are not found" in other.compared()
    assert "training images, each compared with the others" in other.compared()
    assert len(found.rows()) == 2 * len(MEASURES)
    assert all(math.isfinite(cell) for row in found.rows() for cell in row[1:-1])
