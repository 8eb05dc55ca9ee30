"""The settings a set is generated with: those that are given, and an artifact -> both configs, checked.

The one place that knows which of an artifact's settings hold for a set.
"""

from __future__ import annotations

import dataclasses
from typing import cast, get_args

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig, GroupSamplingMethod
from d3hr_datasets.config.timesteps import check_on_grid
from d3hr_datasets.errors import ConfigError


def default_settings(
    info: ArtifactInfo, ipc: int, nested: bool = False, method: str | None = None, *, redrawn: bool = False
) -> tuple[GroupSamplingConfig, DecodeConfig]:
    """Return how a set of `ipc` images per class is made where nobody says: by the rule for its size.

    Nested sets of all sizes are made alike, since their images must not change when they grow: no rule holds.
    A rule of curated images, of which there is one group, is passed over for the next larger rule where
    another group or another method is asked for: what suits chosen images need not suit others.

    Args:
        info: Of the artifact.
        ipc: Images per class.
        nested: Whether the set is nested.
        method: Of sampling, if it is chosen. Curated images are decoded as they were chosen, unless the rule
            is one of curated images itself.
        redrawn: Whether another group than the first is asked for: by a seed that is not 0, or in each epoch.
    """
    curated = method == "curated" or (method is None and not redrawn)
    rule = None if nested else info.budget(ipc, curated)
    sampling = rule.sampling if rule is not None and rule.sampling is not None else info.default_sampling
    method = method or sampling.method
    is_other = method == "curated" and sampling.method != "curated"
    decode = None if rule is None or is_other else rule.decode
    return sampling, decode or info.decode_of(method)


def resolve_settings(
    info: ArtifactInfo,
    ipc: int,
    nested: bool,
    sampling: GroupSamplingConfig | GroupSamplingMethod | None,
    decode: DecodeConfig | None,
    seed: int,
    resampled: bool = False,
) -> tuple[GroupSamplingConfig, DecodeConfig]:
    """Return the settings to generate with: those given, each whole, else the artifact's for such a set.

    Args:
        info: Of the artifact.
        ipc: Images per class.
        nested: Whether the set is nested.
        sampling: How groups are sampled, if it is given. The name of a method takes the settings of the
            artifact's rule where that has the same method, else those of `GroupSamplingConfig`.
        decode: How they are denoised, if it is given.
        seed: Of the set, which replaces that of `sampling`.
        resampled: Whether each epoch has a group of its own.

    Raises:
        ConfigError: They do not fit the artifact.
    """
    _check_kinds(sampling, decode)
    method = sampling.method if isinstance(sampling, GroupSamplingConfig) else sampling
    plain_sampling, plain_decode = default_settings(info, ipc, nested, method, redrawn=seed != 0 or resampled)
    if not isinstance(sampling, GroupSamplingConfig):
        is_plain = sampling is None or sampling == plain_sampling.method
        sampling = plain_sampling if is_plain else GroupSamplingConfig(cast(GroupSamplingMethod, sampling))
    sampling = _curated(info, sampling, seed, ipc) if sampling.method == "curated" else sampling
    decode = decode or plain_decode
    steps = decode.num_inference_steps
    if decode.grid == info.inversion.grid == "ddim" and steps is not None:  # says which timesteps there are
        check_on_grid(decode.timestep, steps, info.inversion.num_train_timesteps)
    info.check_decode(decode)
    sampling = dataclasses.replace(sampling, seed=seed)
    if sampling.method == "modes":
        info.check_modes()
    return sampling, decode


def _check_kinds(sampling: object, decode: object) -> None:
    """Raise `ConfigError` where settings are neither what is accepted nor left out."""
    if not isinstance(sampling, GroupSamplingConfig | str | None):
        raise ConfigError(
            f"sampling must be a GroupSamplingConfig or the name of a method, not {sampling!r:.80}; accepted "
            f"names: {list(get_args(GroupSamplingMethod))}"
        )
    if not isinstance(decode, DecodeConfig | None):
        raise ConfigError(
            f"decode must be a DecodeConfig, not {decode!r:.80}; to change some of what a data set has, use "
            "dataclasses.replace(dataset.decode, guidance_scale=2.0)"
        )


def _curated(info: ArtifactInfo, given: GroupSamplingConfig, seed: int, ipc: int) -> GroupSamplingConfig:
    """Return the settings of a curated set, without those that say nothing of one."""
    curation, plain = info.check_curated(ipc), GroupSamplingConfig("curated")
    if seed != 0:
        raise ConfigError(
            f"seed must be 0 with method='curated', not {seed}: the images are those that were chosen, and "
            "there are no others. Leave it out, or use another method"
        )
    if given.mode_spread not in {plain.mode_spread, curation.mode_spread}:
        raise ConfigError(
            f"mode_spread must be {curation.mode_spread} with method='curated', not {given.mode_spread}: so "
            f"the images of the artifact {info.name} were chosen; leave it out"
        )
    if curation.mode_spread is None:
        return plain
    return dataclasses.replace(plain, mode_spread=curation.mode_spread)
