"""Orders of candidates: nested, without a candidate twice, and better than chance at what they aim at."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch

from d3hr_datasets.curation import mean_distance, order_candidates, squared_mmd
from d3hr_datasets.curation.ordering import OrderMethod
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sampling.mode_sampling import share_images

SIZES = (60, 25, 10, 5)  # of the kinds of image that are planted


def planted(sizes: tuple[int, ...] = SIZES, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features of four kinds, far from each other, in random order, and the kind of each."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    kinds = kinds[torch.randperm(len(kinds), generator=generator)]
    centres = 10.0 * torch.eye(4, 6)
    return centres[kinds] + torch.randn(len(kinds), 6, generator=generator), kinds


@pytest.mark.parametrize("method", get_args(OrderMethod))
def test_orders_are_nested_and_have_no_candidate_twice(method: Any) -> None:
    features, _ = planted()
    order = order_candidates(features, 100, method)
    assert sorted(order.tolist()) == list(range(100))
    if method != "facility_location":  # each choice depends on those before it only
        assert torch.equal(order_candidates(features, 30, method), order[:30])
    assert torch.equal(order_candidates(features, 30, "facility_location"), facility()[:30])


def facility() -> torch.Tensor:
    return order_candidates(planted()[0], 100, "facility_location")


def test_the_first_image_is_the_most_typical_one() -> None:
    features, kinds = planted()
    for method in ("herding", "facility_location"):
        first = int(order_candidates(features, 1, method)[0])
        assert kinds[first] == 0, method
    medoid = torch.cdist(features, features).mean(dim=0).argmin()
    assert facility()[0] == medoid


def test_herding_takes_kinds_by_their_share_at_every_size() -> None:
    features, kinds = planted()
    order = order_candidates(features, 40, "herding")
    shares = torch.tensor(SIZES) / 100
    for size in (10, 20, 40):
        found = kinds[order[:size]].bincount(minlength=4)
        assert (found - size * shares).abs().max() <= 1.5, (size, found)


def test_facility_location_takes_every_kind_early() -> None:
    _, kinds = planted()
    assert sorted(kinds[facility()[:4]].tolist()) == [0, 1, 2, 3]
    assert len(kinds[order_candidates(planted()[0], 4, "random", seed=0)].unique()) < 4


@pytest.mark.parametrize("share", [None, 0.0, 0.3])
def test_facility_location_is_the_plain_greedy_choice(share: float | None) -> None:
    features, _ = planted()
    features[50:] = features[:50]  # of several that are as good, the first
    generator = torch.Generator().manual_seed(1)
    weights, difficulty = (torch.rand(100, generator=generator) for _ in range(2))
    options: dict[str, Any] = {} if share is None else {"difficulty": difficulty, "difficulty_weight": share}
    order = order_candidates(features, 60, "facility_location", weights=weights, **options)

    rows = features.double()
    distances = torch.stack([(rows - row).square().sum(dim=1).sqrt() for row in rows])
    some = distances[distances > 0]
    width = float(np.median(some.numpy()))
    nearest = distances.max(dim=0).values
    chosen: list[int] = []
    for _ in range(60):
        gain = ((nearest - distances).clamp(min=0) * (weights.double() / weights.double().sum())).sum(dim=1)
        gain = gain / width - (share or 0.0) * difficulty.double() / (len(chosen) + 1)  # of their mean
        gain[chosen] = -torch.inf
        best = int((gain >= gain.max() - 1e-12).nonzero()[0])
        chosen.append(best)
        nearest = torch.minimum(nearest, distances[best])
    assert order.tolist() == chosen


def test_facility_location_has_no_square_of_the_candidates_in_memory() -> None:
    features = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0))
    tracemalloc.start()
    try:
        order_candidates(features, 5, "facility_location")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3000**2 * 8 / 4  # bytes; all distances are four times as many


def test_what_is_aimed_at_is_better_than_by_chance() -> None:
    features, _ = planted()
    for size in (1, 2, 5, 10, 25, 50):
        chance = [order_candidates(features, size, "random", seed=seed) for seed in range(20)]
        herded = order_candidates(features, size, "herding")
        random_mmd = [squared_mmd(features[chosen], features) for chosen in chance]
        covered = order_candidates(features, size, "facility_location")
        random_distance = [mean_distance(features[chosen], features) for chosen in chance]
        pairs = [
            (squared_mmd(features[herded], features), random_mmd),
            (mean_distance(features[covered], features), random_distance),
        ]
        for found, by_chance in pairs:  # two that chance has found together may beat two greedy ones
            assert found <= (sorted(by_chance)[5] if size == 2 else min(by_chance)), size


def test_coverage_grows_and_each_step_is_the_best_one() -> None:
    features, _ = planted()
    costs = [mean_distance(features[facility()[:size]], features) for size in range(1, 41)]
    assert all(later < earlier for earlier, later in pairwise(costs))
    order = order_candidates(features, 12, "herding").tolist()
    for size in (1, 4, 11):  # against all that could have come next
        others = [number for number in range(100) if number not in order[:size]]
        found = [squared_mmd(features[[*order[:size], other]], features) for other in others]
        assert others[int(torch.tensor(found).argmin())] == order[size]


def test_the_target_and_its_weights_decide() -> None:
    features, kinds = planted()
    rare, _ = planted((0, 0, 0, 40), seed=1)
    for method in ("herding", "facility_location"):
        order = order_candidates(features, 3, method, target=rare)
        assert kinds[order].tolist() == [3] * 3, method
    even = share_images(kinds, torch.tensor([1, 1, 1, 1]))
    masses = torch.zeros(4, dtype=torch.float64).index_add(0, kinds, even)
    assert torch.allclose(masses, torch.ones(4, dtype=torch.float64))
    found = kinds[order_candidates(features, 8, "herding", weights=even)].bincount(minlength=4)
    assert found.tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("method", ["herding", "facility_location"])
def test_difficulty_pushes_images_back(method: Any) -> None:
    features, kinds = planted()
    difficulty = (kinds == 0).double()
    plain = order_candidates(features, 10, method, difficulty=difficulty)
    assert torch.equal(plain, order_candidates(features, 10, method))
    easy = order_candidates(features, 10, method, difficulty=difficulty, difficulty_weight=50.0)
    assert 0 in kinds[plain] and 0 not in kinds[easy]


@pytest.mark.parametrize("method", ["herding", "facility_location"])
def test_difficulty_leaves_orders_nested(method: Any) -> None:
    features, _ = planted()
    difficulty = torch.rand(100, generator=torch.Generator().manual_seed(2))
    options: dict[str, Any] = {"difficulty": difficulty, "difficulty_weight": 0.5}
    order = order_candidates(features, 100, method, **options)
    assert not torch.equal(order, order_candidates(features, 100, method))
    for number in (1, 3, 10, 40):
        assert torch.equal(order_candidates(features, number, method, **options), order[:number])


def test_equal_features_keep_their_places() -> None:
    for method in ("herding", "facility_location"):
        order = order_candidates(torch.ones(6, 3), 6, method)
        assert order.tolist() == list(range(6)), method


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"number": 0}, "number must be from 1 to 4, not 0"),
        ({"number": 5}, "number must be from 1 to 4, not 5"),
        ({"method": "best"}, r"method must be one of \['herding'"),
        ({"features": torch.full((4, 2), torch.nan)}, "features must be finite rows"),
        ({"features": torch.zeros(4)}, r"not of shape \(4,\)"),
        ({"target": torch.zeros(3, 5)}, "target has 5 features, the candidates 2"),
        ({"target": torch.zeros(0, 2)}, "target must be finite rows"),
        ({"weights": torch.ones(3)}, "one for each of the 4 points"),
        ({"weights": torch.tensor([1.0, 1.0, 1.0, -1.0])}, "none negative"),
        ({"weights": torch.zeros(4)}, "not all zero"),
        ({"difficulty_weight": -1.0}, "difficulty_weight must be at least 0"),
        ({"difficulty_weight": 1.0}, "difficulty must have one value"),
        ({"difficulty_weight": 1.0, "difficulty": torch.full((4,), torch.inf)}, "difficulty must be finite"),
    ],
)
def test_what_cannot_be_ordered_is_refused(changes: dict[str, Any], says: str) -> None:
    values: dict[str, Any] = {"features": torch.rand(4, 2), "number": 2, **changes}
    with pytest.raises(ConfigError, match=says):
        order_candidates(values.pop("features"), values.pop("number"), **values)
