"""The modes of every class are found by clustering its images in VAE space."""

from __future__ import annotations

import sys

import pytest
import torch

from d3hr_datasets.build.clustering import fit_centroids, nearest_mode
from d3hr_datasets.errors import ConfigError, StatisticsError

SHAPE = (2, 3, 3)


def test_centroids_find_the_modes_of_every_class() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    mode = (torch.arange(90) // 3) % 2
    latents = torch.randn(90, *SHAPE, generator=generator) * 0.1 + 4.0 * mode.view(-1, 1, 1, 1)
    latents += 10.0 * labels.view(-1, 1, 1, 1)
    centroids = fit_centroids(latents, labels, 3, 2)
    assert centroids.shape == (3, 2, *SHAPE)
    found = nearest_mode(latents, labels, centroids)
    for label in range(3):
        own = found[labels == label]
        assert len({(int(a), int(b)) for a, b in zip(own, mode[labels == label], strict=True)}) == 2
        torch.testing.assert_close(
            centroids[label, own[0]], latents[(labels == label) & (mode == mode[label])].mean(dim=0)
        )


def test_classes_of_fewer_images_than_modes_are_named() -> None:
    with pytest.raises(StatisticsError, match=r"class label 1 has 1 images .* 2 modes"):
        fit_centroids(torch.randn(3, *SHAPE), torch.tensor([0, 0, 1]), 2, 2)


def test_modes_without_scikit_learn_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ConfigError, match="the extra 'build'"):
        fit_centroids(torch.zeros(3, *SHAPE), torch.zeros(3, dtype=torch.int64), 1, 2)
