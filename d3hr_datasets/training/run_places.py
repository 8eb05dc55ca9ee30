"""What a training may touch, and what it goes on with: checks of a run's folder before anything is written.

In: settings, and the model that a training starts from. Out: nothing, or an error; and what tells the inputs
of a run from others.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from d3hr_datasets.diffusion.adapters import network_digest
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.sources.opening import folder_of
from d3hr_datasets.training.base_model import BaseModel, Started
from d3hr_datasets.training.latents import Latents
from d3hr_datasets.training.settings import DiffusionTraining


def check_run_places(settings: DiffusionTraining, made: str) -> None:
    """Check that a training replaces nothing but what it made, and writes nothing among its images.

    Args:
        settings: Of the training.
        made: Name of the folder in the run's that is replaced.

    Raises:
        ConfigError: The run's folder is in that of the images, or has a folder that no run made, or the base
            model is in that one.
    """
    output = Path(settings.output)
    source, target = folder_of(settings.source), output / made
    if source is not None and output.resolve().is_relative_to(source.resolve()):
        raise ConfigError(
            f"output = {settings.output!r} is in the folder of the images, {source}; give another output"
        )
    for name in ("model", "vae"):
        value = getattr(settings, name)
        if value is not None and expand_user(value).resolve().is_relative_to(target.resolve()):
            raise ConfigError(
                f"the {name} {value} is in {target}, which what is trained replaces; give another output"
            )
    if target.exists() and not (output / "settings.yaml").exists():
        raise ConfigError(
            f"{target} is there already, is of no run of this kind, and would be replaced; move it, or give "
            "another output"
        )


def inputs_of(base: BaseModel, started: Started, latents: Latents) -> dict[str, str]:
    """Return what tells the inputs of a run from others, by name."""
    model = f"{base.repo_id}@{base.revision}"
    if base.repo_id is None:
        model = "" if base.folder is None else network_digest(base.folder, base.kind)
    prompts = None if started.prompts is None else started.prompts.to_dict()
    labels = hashlib.sha256(latents.labels.numpy().tobytes()).hexdigest()
    return {
        "images": f"{len(latents)} {labels}",  # not times of change: a copy of the images is as good
        "classes": json.dumps(latents.classes),
        "prompts": json.dumps(prompts),
        "model weights": model,
        "a VAE": base.vae.digest,
    }
