"""Near copies: planted ones are found and honest sets are not called so; neighbours are exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats

from d3hr_datasets.copies import exceedances, neighbours
from d3hr_datasets.copies.comparisons import CHANCE, compare_nearness
from d3hr_datasets.copies.exceedances import count_exceedances, exceedance_law
from d3hr_datasets.copies.nearness import Nearness, measure_nearness, pixel_distances
from d3hr_datasets.copies.neighbours import NeighbourSearch
from d3hr_datasets.errors import ConfigError
from tests.copies.sets import (
    HELD_OUT,
    TRAINING,
    findings,
    images,
    odds,
)


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
        assert odds(comparison).exceeds and comparison.num_near >= 6 and comparison.num_images == 60
        assert odds(comparison).p_value < 1e-3
        assert odds(comparison).expected == pytest.approx(60 / 101)
    assert found.verdict().startswith("More near copies of training images than among held-out images")
    assert f"ratio: {found.spaces['pixels']['ratio'].num_near} of 60 images, 0.6 expected" in found.verdict()


def test_the_needed_number_is_the_least_that_is_told() -> None:
    generator = torch.Generator().manual_seed(0)
    others = torch.rand(1000, generator=generator, dtype=torch.float64)
    labels = torch.zeros(100).long()
    for near in range(12):
        values = torch.full((100,), 2.0, dtype=torch.float64)
        values[:near] = -1.0
        sets = [{"pixels": Nearness(part, part, labels)} for part in (values, others)]
        names = ["only"]  # by itself a class is told as all together are
        found = compare_nearness(sets[0], labels, sets[1], torch.zeros(1000).long(), names)
        told = odds(found["pixels"]["ratio"])
        assert told.exceeds == (near >= told.needed) and 2 < told.needed < 12
    alone = count_exceedances(torch.zeros(1), torch.zeros(1).long(), others[:5], torch.zeros(5).long())
    assert alone.needed(0.01) == 2  # of one image, which is near by chance of 1/6


def test_copies_in_one_class_of_many_are_told() -> None:
    """What three of thousands of images are, the test of a class alone still sees."""
    generator = torch.Generator().manual_seed(0)
    names = [f"class {label}" for label in range(200)]
    labels = torch.arange(200).repeat_interleave(10)
    values, others = (torch.rand(2000, generator=generator, dtype=torch.float64) + 0.5 for _ in range(2))

    def found(values: torch.Tensor) -> Any:
        sets = [{"pixels": Nearness(part, part, labels)} for part in (values, others)]
        return compare_nearness(sets[0], labels, sets[1], labels, names)["pixels"]["ratio"]

    assert not odds(found(values)).exceeds
    values[70:80] = 0.01  # as many as the class has, of 2,000
    assert odds(found(values)).classes == ("class 7",) and odds(found(values)).exceeds
    assert odds(found(values)).p_value > 0.01  # over all classes, ten more are none


def test_plain_images_are_near_and_no_copies() -> None:
    """Images with half of the noise are nearer to all training images; none of these stands out."""
    generated, labels = images(20, 2)
    brightness = 60 + 60 * labels[:, None, None, None]
    plain = (brightness + 0.5 * (generated.float() - brightness)).to(torch.uint8)
    found = findings(plain, labels)
    pixels = {space: comparisons for space, comparisons in found.spaces.items() if space == "pixels"}
    found = dataclasses.replace(found, spaces=pixels)
    assert pixels["pixels"]["distance"].num_near > 50 and odds(pixels["pixels"]["distance"]).exceeds
    assert not odds(pixels["pixels"]["ratio"]).exceeds
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
        called += any(odds(comparison).exceeds for comparison in found["pixels"].values())
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
        torch.tensor([0.9, 1.0, 999.0, 1002.0]), torch.tensor([0, 0, 1, 1]), held_out, labels
    )
    assert found.near.tolist() == [True, False, True, False]  # below 1, the second of 200; below 1001
    assert found.shares == pytest.approx((2 / 201, 2 / 201))
    assert found.expected == pytest.approx(4 * 2 / 201)
    law = stats.betabinom(2, 2, 199)
    assert found.class_p_values == pytest.approx({0: law.sf(0), 1: law.sf(0)})
    both = 1 - law.pmf(0) ** 2 - 2 * law.pmf(0) * law.pmf(1)  # two or more of both classes together
    assert found.p_value == pytest.approx(both)
    assert exceedances.NEAR == 0.01


def test_nothing_is_told_by_measures_that_are_all_the_same() -> None:
    same, labels = torch.zeros(500), torch.arange(10).repeat_interleave(50)
    found = count_exceedances(same, labels, torch.zeros(50), torch.arange(10).repeat_interleave(5))
    assert found.p_value == pytest.approx(1) and min(found.class_p_values.values()) == pytest.approx(1)


def test_distances_of_pairs_are_those_of_neighbours() -> None:
    large = torch.zeros(2, 1, 200, 100, dtype=torch.uint8)
    assert pixel_distances(large, large + 9).tolist() == pytest.approx([9, 9])
    found = measure_nearness(HELD_OUT, [TRAINING], len(TRAINING))["pixels"]
    assert pixel_distances(HELD_OUT, TRAINING[found.nearest]).tolist() == pytest.approx(
        found.distance.tolist()
    )
