"""What generating images takes: settings, the model of an artifact, latents, PIL images, groups at once."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.config.timesteps import check_on_grid
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.ambient import neutral
from d3hr_datasets.sampling.group_sampling import sample_group, sample_nested
from d3hr_datasets.sampling.mode_sampling import sample_modes

if TYPE_CHECKING:
    pass


def resolve_settings(
    info: ArtifactInfo, sampling: GroupSamplingConfig | None, decode: DecodeConfig | None, seed: int
) -> tuple[GroupSamplingConfig, DecodeConfig]:
    """Return the settings to generate with: those given, else the artifact's.

    Raises:
        ConfigError: They do not fit the artifact.
    """
    decode = decode or info.decode
    check_on_grid(decode.timestep, decode.num_inference_steps, info.inversion.num_train_timesteps)
    if decode.timestep not in info.inversion.timesteps:
        raise ConfigError(
            f"timestep {decode.timestep} is not stored; stored: {list(info.inversion.timesteps)}"
        )
    default = GroupSamplingConfig("modes" if info.num_modes > 1 else "moment_matched")
    sampling = dataclasses.replace(sampling or default, seed=seed)
    if sampling.method == "modes" and info.num_modes == 1:
        raise ConfigError(
            f"the artifact {info.name} stores no modes; use the method 'moment_matched' or 'search'"
        )
    return sampling, decode


@neutral()
def draw_latents(
    artifact: Artifact,
    class_label: int,
    ipc: int,
    sampling: GroupSamplingConfig,
    decode: DecodeConfig,
    nested: bool,
) -> torch.Tensor:
    """Return what is denoised together: the group of a class, or the whole blocks of a nested one."""

    def draw(size: int, config: GroupSamplingConfig) -> torch.Tensor:
        if config.method == "modes":
            return sample_modes(artifact.modes(decode.timestep, class_label), size, class_label, config)
        gaussian = artifact.gaussians(decode.timestep, class_label)
        return sample_group(gaussian.mean[0], gaussian.variance[0], size, class_label, config)

    return sample_nested(draw, ipc, sampling) if nested else draw(ipc, sampling)
