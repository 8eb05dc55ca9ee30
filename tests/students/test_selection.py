"""Subsets of real images."""

from __future__ import annotations

import pytest
import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.students.selection import herding, k_center, medoids, select_per_class


def test_medoids_are_the_nearest_to_the_centres_of_clusters() -> None:
    features = torch.tensor([[0.0], [1.0], [3.0], [50.0], [51.0], [60.0]])  # centres 4/3 and 53 2/3
    assert sorted(medoids(features, 2).tolist()) == [1, 4]
    with pytest.raises(ConfigError, match="only 2 images differ, and 3"):
        medoids(torch.tensor([[0.0], [1.0], [1.0]]), 3)


def test_herding_and_k_center_choose_by_hand() -> None:
    features = torch.tensor([[0.0], [1.0], [2.0], [9.0]])  # mean 3
    assert herding(features, 2).tolist() == [2, 1]  # 2 is nearest to 3; (2 + 1) / 2 = 1.5, (2 + 9) / 2 = 5.5
    assert k_center(features, 3).tolist() == [2, 3, 0]
    labels = torch.tensor([1, 0, 1, 0])
    assert select_per_class(k_center, features, labels, 1).tolist() == [1, 0]
    with pytest.raises(ConfigError, match="class 0 has 2 images, not 3"):
        select_per_class(k_center, features, labels, 3)
