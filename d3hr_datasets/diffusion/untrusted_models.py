"""How large a model would be, looked at before it is made: a small file may describe a huge one.

In: a part of a model in diffusers' layout. Out: nothing, or an error before anything is allocated.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.diffusion.layout import WEIGHTS
from d3hr_datasets.errors import ArtifactFormatError, ForeignFileError, ModelFormatError
from d3hr_datasets.io.untrusted_files import MAX_CONFIG_BYTES, check_file, open_file, read_header, read_json

MAX_INTEGER = 65_536  # of a configuration: widths, classes, timesteps
MAX_SAMPLE_SIZE = 1024
MAX_LENGTH = 8  # of a list: blocks of a VAE, which halves images in each
# Elements of the table of positions; DiT-XL/2 of 512 pixels has 2^20, SANA of 4096 2^25, SD 3.5 medium 2^28.
MAX_POSITIONS = 2**24
MAX_POSITIONS_OF = {"SanaTransformer2DModel": 2**26, "SD3Transformer2DModel": 2**28}
MAX_SHARDS = 64
# Making a layer takes time, however small it is: DiT-XL has 28, VAEs have 2 in each of 4 blocks.
LIMITS = {
    "sample_size": MAX_SAMPLE_SIZE,
    "num_layers": 96,
    "num_single_layers": 96,
    "num_hidden_layers": 96,
    "layers_per_block": 8,
    "encoder_layers_per_block": 16,
    "decoder_layers_per_block": 16,
    "transformer_layers_per_block": 32,
    "reverse_transformer_layers_per_block": 32,
    "pos_embed_max_size": 512,
}
LENGTHS = {
    "trained_betas": MAX_INTEGER,
    "latents_mean": 1024,
    "latents_std": 1024,
    "dual_attention_layers": 96,
}
# What the table of positions is made for, with the defaults of diffusers.
POSITIONS = {"sample_size": 32, "patch_size": 2, "num_attention_heads": 16, "attention_head_dim": 72}
IGNORED = {"lambda_min_clipped"}  # of DPM-Solver; DDIM does not read it
BYTES_PER_PARAMETER = 8  # of the widest type


def check_config(path: Path, max_integer: int = MAX_INTEGER, max_length: int = MAX_LENGTH) -> dict[str, Any]:
    """Return a configuration whose numbers and lists are of a size that models have.

    Args:
        path: The file.
        max_integer: Largest number, where none of its own is known.
        max_length: Longest list, likewise.

    Raises:
        ArtifactFormatError: It is no JSON object.
        ModelFormatError: A number is too large, or a list too long.
    """
    config = read_json(path, infinity=True, max_bytes=MAX_CONFIG_BYTES)
    for key, value in _values(config):
        if isinstance(value, list):
            limit = LENGTHS.get(key, max_length)
            if len(value) > limit:
                raise ModelFormatError(f"{path}: {key} has {len(value):,} entries; accepted: at most {limit}")
            continue
        limit = LIMITS.get(key, max_integer)
        if abs(value) > limit and key not in IGNORED:
            raise ModelFormatError(f"{path}: {key} = {value!r:.40}; accepted: at most {limit}")
        if key == "sample_size" and value < 1:
            raise ModelFormatError(f"{path}: sample_size = {value!r:.40}; accepted: at least 1")
    if "quantization_config" in config:
        raise ModelFormatError(f"{path}: the model is quantized, which is not accepted; save it without")
    return config


def check_size(kind: Any, folder: Path) -> None:
    """Check that a part of a model has no more parameters than its weights have room for.

    Args:
        kind: The class of diffusers that will load it.
        folder: Its folder, with `config.json` and weights in safetensors, or in files of `torch.save`.

    Raises:
        ArtifactFormatError: Configuration or weights are not what their names say.
        ModelFormatError: It is larger than its weights.
    """
    config = check_config(folder / "config.json")
    weights = sorted(folder.glob(f"{WEIGHTS}*.safetensors"))
    check_shards(folder, weights)
    if weights:
        num_tensors = sum(len(read_header(path)) for path in weights)
        for key in ("num_layers", "layers_per_block"):
            if isinstance(config.get(key), int) and not 1 <= config[key] <= num_tensors:
                raise ModelFormatError(
                    f"{folder}: {key} = {config[key]}, the weights have {num_tensors} tensors"
                )
    else:
        weights = sorted(folder.glob(f"{WEIGHTS}*.bin"))
        for path in weights:
            check_torch_file(path)
    room = sum(check_file(path).st_size for path in weights)
    parameters = count_parameters(kind, folder)
    if parameters > room:
        raise ModelFormatError(
            f"{folder} describes a model of {parameters:,} parameters, and its weights are {room:,} bytes; "
            "download or save it again"
        )


def check_shards(folder: Path, weights: list[Path]) -> None:
    """Check that an index of weights names files beside it, and not too many of them.

    Raises:
        ArtifactFormatError: It is no JSON object.
        ModelFormatError: It names others.
    """
    for index in folder.glob("*.index.json"):
        names = {str(name) for name in (read_json(index).get("weight_map") or {}).values()}
        if not names <= {path.name for path in weights}:
            raise ModelFormatError(f"{index} names weights that are not beside it: {sorted(names)[:3]}")
    if len(weights) > MAX_SHARDS:
        raise ModelFormatError(f"{folder}: {len(weights)} files of weights; accepted: at most {MAX_SHARDS}")


def count_parameters(kind: Any, folder: Path) -> int:
    """Return how many parameters the configuration of a part of a model describes.

    Raises:
        ArtifactFormatError: It is no JSON object.
        ModelFormatError: Something in it is too large, or it describes no such part.
    """
    path = folder / "config.json"
    config = check_config(path)
    sizes = [config.get(key, value) for key, value in POSITIONS.items()]
    has_positions = kind.__name__ == "DiTTransformer2DModel" or "attention_head_dim" in config
    if has_positions and all(isinstance(n, int) and n >= 1 for n in sizes):
        side, patch, heads, width = sizes
        largest = config.get("pos_embed_max_size")
        places = max(side // patch, largest if isinstance(largest, int) else 0)
        positions = places**2 * heads * width
        limit = MAX_POSITIONS_OF.get(kind.__name__, MAX_POSITIONS)
        if positions > limit:
            raise ModelFormatError(
                f"{path}: {places} x {places} places and a width of {heads} x {width} make {positions:,} "
                f"numbers of positions; accepted: at most {limit:,}"
            )
    try:
        with torch.device("meta"):  # shapes only
            model = kind.from_config(config)
    except Exception as error:  # of any layer that does not take the configuration
        raise ModelFormatError(f"{path} describes no {kind.__name__}: {error}") from error
    return sum(parameter.numel() for parameter in model.parameters())


def check_torch_file(path: Path, max_bytes: int | None = None) -> None:
    """Check that a file is one of `torch.save` that holds no more than it seems to: a zip, not compressed.

    Args:
        path: The file.
        max_bytes: Its size at most.

    Raises:
        ArtifactFormatError: It is another file, larger, or its parts are compressed or overlap.
    """
    try:
        with open_file(path, max_bytes) as file:
            size = check_file(path).st_size
            if file.read(4) != b"PK\3\4":
                raise ArtifactFormatError(f"{path} is no file that torch.save has written; save it again")
            with zipfile.ZipFile(file) as archive:
                parts = archive.infolist()
    except (ForeignFileError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        if isinstance(error, ArtifactFormatError):
            raise
        raise ArtifactFormatError(f"{path} is no file that torch.save has written: {error}") from error
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ArtifactFormatError(f"{path}: its parts are compressed, as torch.save does not; save it again")
    if sum(part.file_size for part in parts) > size:
        raise ArtifactFormatError(f"{path}: its parts are larger than the file; save it again")


def _values(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the numbers and the lists of JSON values, each with the key it stands under."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _values(item, name)
    elif isinstance(value, list):
        yield key, value
        for item in value:
            yield from _values(item, key)
    elif isinstance(value, int | float):
        yield key, value
