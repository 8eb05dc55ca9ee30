"""Adapting a base model to images of one's own: a few choices -> the settings of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.runs.settings_files import parse_override, settings_of
from d3hr_datasets.sources.opening import SourceOptions, open_source
from d3hr_datasets.training.settings import DiffusionTraining

STEPS, BATCH_SIZE = 2000, 32
# Of small weights beside those of a model of class labels, whose embeddings are new, or of prompts; of all.
LABELS_RATE, PROMPTS_RATE, FULL_RATE = 1e-3, 1e-4, 1e-4
DEFAULTS: dict[str, Any] = {
    "ema_decay": 0.999,
    "steps": STEPS,
    "samples_per_class": 2,
    "minutes_between_samples": 60.0,
}


def adaption_settings(
    source: str, model: str, output: Path | None = None, changes: Sequence[str] = (), **given: Any
) -> DiffusionTraining:
    """Return the settings that adapt a model to images.

    Args:
        source: Of the images.
        model: Base model.
        output: Folder of the run; "NAME-adapter" or "NAME-model" of the source's name, if it is None.
        changes: "KEY=VALUE" each: other fields of `DiffusionTraining`.
        given: Fields of `DiffusionTraining`, None for those to be chosen here; and `download`, whether
            torchvision may fetch the images.

    Raises:
        ConfigError: A setting is unknown, or has a value that is not accepted.
        SourceError: The images cannot be opened.
    """
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    download = bool(values.pop("download", False))
    values |= dict(map(parse_override, changes))
    if values.get("epochs") is not None:
        values.setdefault("steps", None)
    values = {**DEFAULTS, "start": "lora", **values}
    is_full = values["start"] == "full"
    prompted = values.get("prompt") is not None or values.get("prompts") is not None
    values.setdefault("learning_rate", FULL_RATE if is_full else PROMPTS_RATE if prompted else LABELS_RATE)
    values.setdefault("mixed_precision", "bf16" if _has_bf16() else "no")
    if "batch_size" not in values:
        values["batch_size"] = min(BATCH_SIZE, _count(source, download))
    values["output"] = str(output or default_output(source, is_full))
    return settings_of(DiffusionTraining, {**values, "source": source, "model": model}, "the command")


def default_output(source: str, is_full: bool) -> str:
    """Return the folder of a run, named by its images."""
    kind, _, rest = source.partition(":")
    if kind == "torchvision":
        rest = rest.partition(":")[0]
    elif kind != "datasets":
        rest = source
    return f"{Path(rest.partition('@')[0]).name}-{'model' if is_full else 'adapter'}"


def _has_bf16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def _count(source: str, download: bool) -> int:
    """Return how many images a source has, as far as it is no more than a batch."""
    if source == "fashion-mnist":
        return BATCH_SIZE
    return open_source(source, SourceOptions(download=download)).images.num_images or BATCH_SIZE
