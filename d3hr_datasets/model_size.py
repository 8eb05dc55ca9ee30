"""How large a model would be, looked at before it is made: a small file may describe a huge one.

In: a part of a model in diffusers' layout. Out: nothing, or an error before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.errors import ModelFormatError
from d3hr_datasets.safe_files import read_header, read_json

MAX_INTEGER = 65_536  # of a configuration: widths, classes, timesteps
MAX_SAMPLE_SIZE = 1024  # a table of positions is made for its square


def check_config(path: Path) -> dict[str, Any]:
    """Return a configuration whose numbers are of a size that models have.

    Raises:
        ArtifactFormatError: It is no JSON object.
        ModelFormatError: A number is too large.
    """
    config = read_json(path, infinity=True)
    for key, value in _integers(config):
        limit = MAX_SAMPLE_SIZE if key == "sample_size" else MAX_INTEGER
        if abs(value) > limit and key != "lambda_min_clipped":  # of DPM-Solver; DDIM does not read it
            raise ModelFormatError(f"{path}: {key} = {value!r:.40}; accepted: at most {limit}")
        if key == "sample_size" and value < 1:
            raise ModelFormatError(f"{path}: sample_size = {value!r:.40}; accepted: at least 1")
    return config


def check_size(kind: Any, folder: Path) -> None:
    """Check that a part of a model has no more parameters than its weights have room for.

    Args:
        kind: The class of diffusers that will load it.
        folder: Its folder, with `config.json` and weights in safetensors.

    Raises:
        ArtifactFormatError: Configuration or weights are no JSON and no safetensors.
        ModelFormatError: It is larger than its weights.
    """
    config = check_config(folder / "config.json")
    weights = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    for index in folder.glob("*.index.json"):
        names = {str(name) for name in (read_json(index).get("weight_map") or {}).values()}
        if not names <= {path.name for path in weights}:
            raise ModelFormatError(f"{index} names weights that are not beside it: {sorted(names)[:3]}")
    num_tensors = sum(len(read_header(path)) for path in weights)
    for key in ("num_layers", "layers_per_block"):
        if isinstance(config.get(key), int) and not 1 <= config[key] <= num_tensors:
            raise ModelFormatError(f"{folder}: {key} = {config[key]}, the weights have {num_tensors} tensors")
    try:
        with torch.device("meta"):  # shapes only
            model = kind.from_config(config)
    except Exception as error:  # of any layer that does not take the configuration
        raise ModelFormatError(f"{folder / 'config.json'} describes no {kind.__name__}: {error}") from error
    room = sum(path.stat().st_size for path in weights)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > room:
        raise ModelFormatError(
            f"{folder} describes a model of {parameters:,} parameters, and its weights are {room:,} bytes; "
            "download or save it again"
        )


def _integers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _integers(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _integers(item, key)
    elif isinstance(value, int | float):
        yield key, value
