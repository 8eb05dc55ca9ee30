"""Sets that an artifact makes for students: settings -> a `D3HRDataset`, whose images are not made yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d3hr_datasets.classes.class_list import packaged_subset
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig, GroupSamplingMethod
from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.dataset.artifact_registry import REGISTRY, registered_artifact
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.dataset.generation_settings import default_settings
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.image_sets.training_set_settings import GROUPS, TrainingSet

IN_MEMORY = 20_000  # generated images, at most


def open_artifact(settings: TrainingSet, root: str | Path) -> D3HRDataset:
    """Return the distilled data set of the settings; its images are not made yet."""
    sampling: GroupSamplingConfig | GroupSamplingMethod | None = GROUPS.get(settings.source)
    if settings.source == "search":
        sampling = GroupSamplingConfig("search", num_candidates=settings.num_candidates)
    if settings.mode_spread is not None:
        if settings.source != "modes":
            raise ConfigError(
                f"mode_spread is of source 'modes', not of {settings.source!r}; set both or none"
            )
        sampling = GroupSamplingConfig("modes", mode_spread=settings.mode_spread)
    classes = packaged_subset("imagenet", settings.subset) if settings.subset else None
    artifact = settings.artifact or _artifact_of(settings.dataset)
    plain = D3HRDataset(artifact, root, max(settings.ipc, 1), classes=classes)
    timestep = CLEAN if settings.source == "vae_gaussians" else settings.timestep
    changes: dict[str, Any] = {"timestep": timestep, "guidance_scale": settings.guidance_scale}
    method = sampling.method if isinstance(sampling, GroupSamplingConfig) else sampling
    first, default = default_settings(
        plain.artifact.info, plain.ipc, method=method, redrawn=settings.resample_every > 0
    )
    decode = _changed(default, settings.decode, {k: v for k, v in changes.items() if v is not None})
    # Curated images are the same ones for every student, also where a rule asks for them.
    seed = 0 if (method or first.method) == "curated" else settings.seed
    return D3HRDataset(
        plain.artifact,
        root,
        plain.ipc,
        seed,
        classes=classes,
        sampling=sampling,
        decode=decode,
        resample="epoch" if settings.resample_every else "never",
        keep_epochs=settings.keep_epochs,
        in_memory=settings.resample_every > 0 and len(plain) <= IN_MEMORY,
    )


def _artifact_of(dataset: str) -> str | Path:
    """Return the artifact of a data set by its name, or by that of the folder of its real images."""
    name = Path(dataset).name
    if name not in REGISTRY:
        raise ConfigError(
            f"no artifact belongs to the data set {dataset!r}; give one with artifact=FOLDER, or one of the "
            f"names {sorted(REGISTRY)}"
        )
    return registered_artifact(name)


def _changed(decode: DecodeConfig, changes: Any, named: dict[str, Any]) -> DecodeConfig:
    """Return settings of decoding with some changed, those that have a name of their own last.

    Raises:
        ConfigError: They are no fields, or named twice.
    """
    if not isinstance(changes, Mapping):
        raise ConfigError(f"decode must be a mapping of fields of DecodeConfig, not {changes!r:.80}")
    if twice := sorted({"timestep", "guidance_scale"} & set(changes)):
        raise ConfigError(f"decode sets {', '.join(twice)}, which are settings of their own: give them there")
    if changes.get("num_steps") is not None:
        named = {"num_inference_steps": None, **named}
    return DecodeConfig.from_dict({**dataclasses.asdict(decode), **changes, **named})
