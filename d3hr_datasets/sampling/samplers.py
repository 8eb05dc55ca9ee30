"""The group of a class: an artifact and settings -> latents that are denoised together, and their weights.

The one place that knows which sampler a method is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.numerics.sums import ordered_mean
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sampling.curated_sampling import modes_of_candidates, sample_candidates
from d3hr_datasets.sampling.gaussian_sampling import sample_group
from d3hr_datasets.sampling.mode_sampling import modes_of_group, sample_modes, share_images
from d3hr_datasets.sampling.nested_sampling import NESTED_BLOCK, sample_nested


@neutral()
def draw_latents(
    artifact: Artifact,
    class_label: int,
    ipc: int,
    sampling: GroupSamplingConfig,
    decode: DecodeConfig,
    nested: bool,
) -> torch.Tensor:
    """Return what is drawn together: the group of a class, or the whole blocks of a nested one.

    Raises:
        ConfigError: The artifact has not what the method needs: modes, or an order of `ipc` images.
    """
    if sampling.method == "curated":
        curation = artifact.info.check_curated(ipc)
        # Nested by itself. The last block of the order may be a shorter one, in sets of all sizes.
        size = min(-(-ipc // NESTED_BLOCK) * NESTED_BLOCK, curation.num_kept) if nested else ipc
        numbers = artifact.order(class_label)[0, :size]
        return draw_candidates(artifact, class_label, numbers, curation.seed, curation.mode_spread, decode)

    def draw(size: int, config: GroupSamplingConfig) -> torch.Tensor:
        if config.method == "modes":
            return sample_modes(artifact.modes(decode.timestep, class_label), size, class_label, config)
        gaussian = artifact.gaussians(decode.timestep, class_label)
        return sample_group(gaussian.mean[0], gaussian.variance[0], size, class_label, config)

    return sample_nested(draw, ipc, sampling) if nested else draw(ipc, sampling)


@neutral()
def group_weights(
    artifact: Artifact,
    class_label: int,
    ipc: int,
    sampling: GroupSamplingConfig,
    decode: DecodeConfig,
    nested: bool,
) -> torch.Tensor:
    """Return the share of the class's images that each latent of a group stands for: (ipc,) float32, mean 1.

    Latents of one Gaussian stand for equal shares. Those that are drawn from modes share the images of their
    mode with the others of the group; modes without a latent have no part in it.
    """
    if sampling.method == "curated" and artifact.info.num_modes > 1:
        curation, modes = artifact.info.check_curated(ipc), artifact.modes(decode.timestep, class_label)
        numbers = artifact.order(class_label)[0, :ipc]
        drawn = modes_of_candidates(modes, numbers, class_label, seed=curation.seed)
        counts = modes.count[0].cpu()
    elif sampling.method == "modes":
        modes = artifact.modes(decode.timestep, class_label)
        drawn, counts = modes_of_group(modes, NESTED_BLOCK if nested else ipc)
        blocks = -(-ipc // len(drawn))  # of a nested group, all alike
        drawn = drawn.repeat(blocks)[:ipc]
    else:
        return torch.ones(ipc)
    weights = share_images(drawn, counts)
    return (weights / ordered_mean(weights, 0)).float()


def draw_candidates(
    artifact: Artifact,
    class_label: int,
    numbers: Sequence[int] | torch.Tensor,
    seed: int,
    mode_spread: float | None,
    decode: DecodeConfig,
) -> torch.Tensor:
    """Return candidates of a class, from its modes where the artifact stores them; as `sample_candidates`."""
    read = artifact.modes if artifact.info.num_modes > 1 else artifact.gaussians
    statistics = read(decode.timestep, class_label)
    return sample_candidates(statistics, numbers, class_label, seed=seed, mode_spread=mode_spread)
