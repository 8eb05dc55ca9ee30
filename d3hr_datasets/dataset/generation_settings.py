"""The settings a set is generated with: those that are given, and an artifact -> both configs, checked."""

from __future__ import annotations

import dataclasses

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.config.timesteps import check_on_grid


def resolve_settings(
    info: ArtifactInfo, sampling: GroupSamplingConfig | None, decode: DecodeConfig | None, seed: int
) -> tuple[GroupSamplingConfig, DecodeConfig]:
    """Return the settings to generate with: those given, else the artifact's.

    Raises:
        ConfigError: They do not fit the artifact.
    """
    decode = decode or info.decode
    if decode.grid == info.inversion.grid == "ddim":  # says which timesteps there are
        check_on_grid(decode.timestep, decode.num_inference_steps, info.inversion.num_train_timesteps)
    info.check_decode(decode)
    default = GroupSamplingConfig("modes" if info.num_modes > 1 else "moment_matched")
    sampling = dataclasses.replace(sampling or default, seed=seed)
    if sampling.method == "modes":
        info.check_modes()
    return sampling, decode
