"""How long it takes to sample a group: `make bench` prints both samplers side by side."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from d3hr_datasets import GroupSamplingConfig, sample_group

MEAN, VARIANCE = torch.zeros(4, 32, 32), torch.ones(4, 32, 32)


@pytest.mark.parametrize("method", ["moment_matched", "search"])
def test_sample_group_of_ten(benchmark: Any, method: Any) -> None:
    """One ImageNet-sized class, IPC 10; search compares 200 candidates."""
    config = GroupSamplingConfig(method, num_candidates=200)
    benchmark.group = "groups of ten latents, d = 4096"
    benchmark.extra_info.update(way=method, baseline="search", images=10)
    group = benchmark(sample_group, MEAN, VARIANCE, 10, 0, config)
    assert group.shape == (10, 4, 32, 32)
