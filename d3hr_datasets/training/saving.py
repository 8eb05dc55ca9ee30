"""What a training leaves: a network with averaged weights -> a model in diffusers' layout, or an adapter.

Models are stored in half precision, and say the names of their classes and the frame of their images, so that
`d3hr build` knows them. An adapter says of which model it is.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from d3hr_datasets.diffusion.adapters import AdapterDescription, network_digest, save_adapter
from d3hr_datasets.diffusion.layout import INDEX, PARTS
from d3hr_datasets.diffusion.model_folder import PADDING
from d3hr_datasets.io.atomic import renewed_folder, replace_text
from d3hr_datasets.io.untrusted_files import MAX_CONFIG_BYTES, read_json
from d3hr_datasets.training.base_model import BaseModel, Started


def save_model(base: BaseModel, started: Started, classes: tuple[str, ...], folder: Path) -> None:
    """Write a model whose network was trained. It is in half precision afterwards.

    Args:
        base: What the training started from.
        started: The network, with the weights that are kept.
        classes: Names of the classes.
        folder: Replaced.
    """
    with renewed_folder(folder) as new:
        if base.kind.takes_prompts:
            _save_beside_base(base, started.network, new)
        else:
            _save_dit(base, started, new)
        index = read_json(new / INDEX, max_bytes=MAX_CONFIG_BYTES)
        if not base.kind.takes_prompts:
            index["id2label"] = {str(label): name for label, name in enumerate(classes)}
        index[PADDING] = base.vae.padding
        replace_text(new / INDEX, json.dumps(index, indent=2) + "\n")


def _save_dit(base: BaseModel, started: Started, folder: Path) -> None:
    from diffusers import DiTPipeline

    scheduler: Any = started.schedule.scheduler  # type: ignore[attr-defined]  # both schedules have one
    vae = base.vae.module.cpu()
    DiTPipeline(started.network.cpu().half(), vae.half(), scheduler).save_pretrained(folder)


def _save_beside_base(base: BaseModel, network: Any, folder: Path) -> None:
    """Copy all parts of the base model but its network, which is written anew."""
    assert base.folder is not None
    part = base.kind.network[0]
    shutil.copy(base.folder / INDEX, folder / INDEX)
    for name, patterns in PARTS.items():
        for path in (path for pattern in patterns for path in base.folder.glob(f"{name}/{pattern}")):
            if name != part:
                (folder / name).mkdir(exist_ok=True)
                shutil.copy(path, folder / name / path.name)
    network.cpu().half().save_pretrained(folder / part)


def write_adapter(
    base: BaseModel, started: Started, classes: tuple[str, ...], steps: int, folder: Path
) -> None:
    """Write the adapter that was trained.

    Args:
        base: The model that it is of.
        started: peft's model, with the weights that are kept.
        classes: Their names.
        steps: That it was trained for.
        folder: Replaced.
    """
    assert base.folder is not None
    description = AdapterDescription(
        kind=base.kind.name,
        weights_sha256=network_digest(base.folder, base.kind),
        num_classes=None if base.kind.takes_prompts else len(classes),
        classes=() if base.kind.takes_prompts else classes,
        repo_id=base.repo_id,
        revision=base.revision,
        steps=steps,
    )
    with renewed_folder(folder) as new:
        save_adapter(started.network, description, new)
