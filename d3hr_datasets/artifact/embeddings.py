"""Stored embeddings of prompts: what text encoders made of them <-> one safetensors file.

Each input of the network is there as `INPUT` (K, ...), a row for each class, and `negative.INPUT` (1, ...).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.diffusion.kinds.kind import Inputs
from d3hr_datasets.errors import ArtifactFormatError, ModelFormatError
from d3hr_datasets.io.atomic import replace_file
from d3hr_datasets.io.untrusted_files import read_header
from d3hr_datasets.numerics.torch_settings import neutral

NEGATIVE = "negative."


@neutral()
def as_stored(embeddings: PromptEmbeddings) -> PromptEmbeddings:
    """Return embeddings as they are read again: floats in float32, rounded to half precision.

    Raises:
        ModelFormatError: One is too large for half precision.
    """

    def rounded(inputs: Inputs) -> Inputs:
        found = {}
        for name, values in inputs.items():
            stored = values.half() if values.is_floating_point() else values
            if not stored.isfinite().all():
                raise ModelFormatError(
                    f"the embeddings {name} of a prompt overflow half precision, in which they are stored; "
                    "build "
                    "without storing embeddings"
                )
            found[name] = stored.float() if stored.is_floating_point() else stored
        return found

    negative = None if embeddings.negative is None else rounded(embeddings.negative)
    by_label = {label: rounded(inputs) for label, inputs in embeddings.embeddings.items()}
    return PromptEmbeddings(embeddings.num_classes, by_label, negative)


def write_embeddings(path: Path, embeddings: PromptEmbeddings) -> int:
    """Write the embeddings of every class, floats in half precision, and return the bytes of the file."""
    labels = range(embeddings.num_classes)
    names = embeddings.embeddings[0]
    tensors = {name: torch.cat([embeddings.embeddings[label][name] for label in labels]) for name in names}
    for name, values in (embeddings.negative or {}).items():
        tensors[NEGATIVE + name] = values
    stored = {
        name: (values.half() if values.is_floating_point() else values).contiguous()
        for name, values in tensors.items()
    }
    replace_file(path, lambda temporary: save_file(stored, temporary))
    return path.stat().st_size


def read_embeddings(path: Path, num_classes: int) -> PromptEmbeddings:
    """Return what `write_embeddings` wrote; floats in float32.

    Raises:
        ArtifactFormatError: It is not that, or of another number of classes.
    """
    read_header(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactFormatError(f"{path}: {error}; download the artifact again") from error
    tensors = {
        name: values.float() if values.is_floating_point() else values for name, values in tensors.items()
    }
    broken = sorted(name for name, values in tensors.items() if not bool(values.isfinite().all()))
    if broken:
        raise ArtifactFormatError(f"{path}: {broken} are not finite; download the artifact again")
    negative = {
        name.removeprefix(NEGATIVE): values for name, values in tensors.items() if name.startswith(NEGATIVE)
    }
    rows = {name: values for name, values in tensors.items() if not name.startswith(NEGATIVE)}
    sizes = {len(values) for values in rows.values()} | ({num_classes} if rows else set())
    if sizes != {num_classes} or (negative and set(negative) != set(rows)):
        raise ArtifactFormatError(
            f"{path} holds {sorted(tensors)} of {sorted(sizes)} classes; accepted: embeddings of "
            f"{num_classes}; download the artifact again"
        )
    embeddings = {
        label: {name: values[label : label + 1] for name, values in rows.items()}
        for label in range(num_classes)
    }
    return PromptEmbeddings(num_classes, embeddings, negative or None)
