"""The settings a set is generated with: those that are given, and an artifact -> both configs, checked.

The one place that knows which of an artifact's settings hold for a set.
"""

from __future__ import annotations

import dataclasses

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.config.timesteps import check_on_grid


def default_settings(
    info: ArtifactInfo, ipc: int, nested: bool = False
) -> tuple[GroupSamplingConfig, DecodeConfig]:
    """Return how a set of `ipc` images per class is made where nobody says: by the rule for its size.

    Nested sets of all sizes are made alike, since their images must not change when they grow: no rule holds.
    """
    rule = None if nested else info.budget(ipc)
    sampling, decode = (None, None) if rule is None else (rule.sampling, rule.decode)
    return sampling or info.default_sampling, decode or info.decode


def resolve_settings(
    info: ArtifactInfo,
    ipc: int,
    nested: bool,
    sampling: GroupSamplingConfig | None,
    decode: DecodeConfig | None,
    seed: int,
) -> tuple[GroupSamplingConfig, DecodeConfig]:
    """Return the settings to generate with: those given, each whole, else the artifact's for such a set.

    Raises:
        ConfigError: They do not fit the artifact.
    """
    default_sampling, default_decode = default_settings(info, ipc, nested)
    decode = decode or default_decode
    if decode.grid == info.inversion.grid == "ddim":  # says which timesteps there are
        check_on_grid(decode.timestep, decode.num_inference_steps, info.inversion.num_train_timesteps)
    info.check_decode(decode)
    sampling = dataclasses.replace(sampling or default_sampling, seed=seed)
    if sampling.method == "modes":
        info.check_modes()
    return sampling, decode
