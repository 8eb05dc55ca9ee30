"""Nested groups: a way to sample -> latents of which the first k are those of a group of k."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.settings import GroupSamplingConfig
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.sums import ordered_mean
from d3hr_datasets.numerics.torch_settings import neutral

# Images per block of a nested set; the usual sizes 10, 50 and 100 are whole blocks.
NESTED_BLOCK = 10


@neutral()
def sample_nested(
    draw: Callable[[int, GroupSamplingConfig], torch.Tensor], ipc: int, config: GroupSamplingConfig
) -> torch.Tensor:
    """Draw a group in whole blocks, each of which depends on its number only.

    The first k latents for `ipc` = n are those for `ipc` = k. The price: moments are those of the class
    at multiples of `NESTED_BLOCK` only ("moment_matched"; the mean at even numbers, too), and not between;
    and each block is spread over no more modes than it has latents ("modes").

    Args:
        draw: Draws a group of a class of the size and with the settings given, (size, *latent).
        ipc: Images per class, at least 1.
        config: Method, seed and weights; each block is sampled by itself.

    Returns:
        (B, *latent) float32 on the CPU, B = `ipc` rounded up to whole blocks.

    Raises:
        ConfigError: `ipc` is no positive integer.
    """
    check_int("ipc", ipc, 1)
    blocks = []
    for block in range(-(-ipc // NESTED_BLOCK)):
        seed = derive_seed(config.seed, "nested", block)
        group = draw(NESTED_BLOCK, dataclasses.replace(config, seed=seed))
        if config.method == "moment_matched" and block > 0:
            # m blocks of b latents need mb - 1 squared deviations; each has b - 1 by itself.
            mean = ordered_mean(group, 0)
            group = mean + (group - mean) * math.sqrt(NESTED_BLOCK / (NESTED_BLOCK - 1))
        blocks.append(group)
    return torch.cat(blocks)
