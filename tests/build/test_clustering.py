"""Points of a class in bounded memory are clustered nearly as well as all of its latents."""

from __future__ import annotations

import sys

import pytest
import torch

from d3hr_datasets.build.clustering import cells_of_points, find_centroids, nearest_mode
from d3hr_datasets.build.mode_points import HELD_PER_MODE, KEPT_PER_MODE, ModePoints
from d3hr_datasets.errors import ConfigError

SHAPE = (2, 3, 3)
SIZE = 18


def mixture(number: int, modes: int, seed: int = 0) -> torch.Tensor:
    """Return points of overlapping clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(modes, SIZE, generator=generator) * 1.5
    mode = torch.randint(modes, (number,), generator=generator)
    return centres[mode] + torch.randn(number, SIZE, generator=generator)


def objective(points: torch.Tensor, centroids: torch.Tensor) -> float:
    """Return the sum of squared distances to the nearest centroid."""
    return float(torch.cdist(points.double(), centroids.double()).min(dim=1).values.square().sum())


def test_centroids_find_the_modes_and_images_their_centroid() -> None:
    generator = torch.Generator().manual_seed(0)
    mode = torch.arange(30) % 2
    latents = torch.randn(30, *SHAPE, generator=generator) * 0.1 + 4.0 * mode.view(-1, 1, 1, 1)
    points = ModePoints(2, SIZE)
    points.update(latents)
    centroids = points.centroids().view(1, 2, *SHAPE)
    found = nearest_mode(latents, torch.zeros(30, dtype=torch.int64), centroids)
    assert len({(int(a), int(b)) for a, b in zip(found, mode, strict=True)}) == 2
    torch.testing.assert_close(centroids[0, found[0]], latents[mode == mode[0]].mean(dim=0))


def test_weights_are_images() -> None:
    points = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
    centroids = find_centroids(points, torch.tensor([3, 1, 1, 3]), 2)
    assert sorted(centroids.flatten().tolist()) == pytest.approx([0.25, 9.75])


def test_points_in_bounded_memory_are_clustered_within_two_percent_of_all() -> None:
    latents, modes = mixture(4000, 7), 5
    points = ModePoints(modes, SIZE)
    for batch in latents.split(37):
        points.update(batch)
        assert points.num_points <= HELD_PER_MODE * modes < len(latents) / 5
    assert float(points.weights.sum()) == len(latents)
    mean = (points.points * points.weights[:, None]).sum(dim=0) / len(latents)
    torch.testing.assert_close(mean, latents.mean(dim=0), atol=1e-5, rtol=1e-4, check_dtype=False)
    everything = find_centroids(latents, torch.ones(len(latents)), modes)
    assert objective(latents, points.centroids()) < 1.02 * objective(latents, everything)


def test_bits_do_not_depend_on_how_latents_are_cut_into_updates() -> None:
    latents = mixture(700, 4)
    found = []
    for size in (1, 100, 700):
        points = ModePoints(3, SIZE)
        for batch in latents.split(size):
            points.update(batch)
        found.append(points)
    assert all(torch.equal(found[0].points, one.points) for one in found)
    assert torch.equal(found[0].centroids(), found[2].centroids())


def test_points_of_two_parts_merge() -> None:
    latents, modes = mixture(2000, 5), 4
    parts = [ModePoints(modes, SIZE), ModePoints(modes, SIZE)]
    for part, half in zip(parts, latents.split(1000), strict=True):
        part.update(half)
    before = parts[1].points.clone()
    parts[0].merge(parts[1])
    assert float(parts[0].weights.sum()) == 2000 and torch.equal(parts[1].points, before)
    assert parts[0].num_points <= HELD_PER_MODE * modes
    everything = find_centroids(latents, torch.ones(2000), modes)
    assert objective(latents, parts[0].centroids()) < 1.02 * objective(latents, everything)


def test_images_that_are_there_many_times_are_one_point_with_their_weight() -> None:
    points = ModePoints(2, SIZE)
    few = mixture(10, 2)
    points.update(few.repeat(HELD_PER_MODE, 1))
    points.update(few)
    assert float(points.weights.sum()) == 10 * (HELD_PER_MODE + 1)
    assert points.num_points <= KEPT_PER_MODE * 2 + 10
    assert objective(few, points.centroids()) < objective(few, few.mean(dim=0, keepdim=True))


def test_modes_without_scikit_learn_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    for cluster in (find_centroids, cells_of_points):
        with pytest.raises(ConfigError, match="the extra 'build'"):
            cluster(torch.zeros(3, SIZE), torch.ones(3), 2)
