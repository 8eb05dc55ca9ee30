"""The statistics of an artifact: class Gaussians and modes <-> the tensors of one safetensors file.

What is read is checked against the artifact's description; one class can be read alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from d3hr_datasets.artifact.gaussians import ClassGaussians, ClassModes
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.quantization import dequantize, is_variance, quantize, scale_name
from d3hr_datasets.errors import ArtifactFormatError, StatisticsError
from d3hr_datasets.io.untrusted_files import MAX_HEADER_BYTES, read_header
from d3hr_datasets.numerics.torch_settings import neutral

SAFETENSORS_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@neutral()
def pack_statistics(
    info: ArtifactInfo, gaussians: Mapping[Any, ClassGaussians], modes: Mapping[Any, ClassModes]
) -> dict[str, torch.Tensor]:
    """Return the tensors of an artifact by name.

    Raises:
        StatisticsError: Gaussians or modes do not fit `info`, or overflow `info.dtype`.
    """
    wanted = set(info.inversion.timesteps)
    if set(gaussians) != wanted or set(modes) != (wanted if info.num_modes > 1 else set()):
        raise StatisticsError(
            f"Gaussians are of timesteps {sorted(gaussians)} and modes of {sorted(modes)}, the artifact "
            f"stores {info.inversion.timesteps} with {info.num_modes} modes per class"
        )
    tensors = {}
    for timestep, gaussian in gaussians.items():
        expected = (len(info.classes), *info.latent_shape)
        if tuple(gaussian.mean.shape) != expected:
            raise StatisticsError(f"Gaussians are {tuple(gaussian.mean.shape)}, the artifact says {expected}")
        if tuple(gaussian.count.tolist()) != info.counts:
            raise StatisticsError("the Gaussians' counts are not info.counts")
        tensors[f"t{timestep}.mean"] = gaussian.mean
        tensors[f"t{timestep}.variance"] = gaussian.variance
        tensors["count"] = gaussian.count
    for timestep, mode in modes.items():
        of_modes = (len(info.classes), info.num_modes, *info.latent_shape)
        if tuple(mode.mean.shape) != of_modes:
            raise StatisticsError(f"modes are {tuple(mode.mean.shape)}, the artifact says {of_modes}")
        if tuple(mode.count.sum(dim=1).tolist()) != info.counts:
            raise StatisticsError("the modes' counts do not sum to info.counts")
        tensors[f"t{timestep}.modes.mean"] = mode.mean
        tensors[f"t{timestep}.modes.variance"] = mode.variance
        tensors["modes.count"] = mode.count
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        stored |= _as_stored(info, name, tensor)
    return stored


def _as_stored(info: ArtifactInfo, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what is stored of one tensor: itself in the artifact's type, or integers and their steps."""
    if info.dtype == "int8" and tensor.is_floating_point():
        values, scale = quantize(name, tensor)
        stored = {name: values, scale_name(name): scale}
    elif tensor.is_floating_point():
        stored = {name: tensor.to(getattr(torch, info.dtype))}
    else:
        stored = {name: tensor}
    for key, values in stored.items():
        if not values.isfinite().all():
            raise StatisticsError(
                f"{key} overflows {info.dtype}: see whether images, guidance and model belong together, or "
                "store them as ArtifactInfo(dtype='float32') does"
            )
    return {key: values.contiguous() for key, values in stored.items()}


@neutral()
def with_mode_means(
    path: Path, info: ArtifactInfo, means: Mapping[float, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the tensors of a file with other means of modes; all others are as stored, to the last bit.

    Args:
        path: The file, which has been checked.
        info: What it is of.
        means: (K, M, *latent) by timestep, for those that change.

    Raises:
        StatisticsError: Means overflow `info.dtype`.
    """
    stored = load_file(path)
    for timestep, mean in means.items():
        stored |= _as_stored(info, f"t{timestep}.modes.mean", mean)
    return stored


def stored_bytes(info: ArtifactInfo) -> int:
    """Return the size that a file of the statistics of an artifact has at most."""
    elements = len(info.classes) * math.prod(info.latent_shape)  # of a mean, or a variance
    tensors = 2 + (info.num_modes + 1 if info.num_modes > 1 else 0)
    counts = 8 * len(info.classes) * (1 + info.num_modes)
    # Four bytes an element: the widest type; with integers, one, and a step for each channel.
    return len(info.inversion.timesteps) * tensors * elements * 4 + counts + MAX_HEADER_BYTES


@neutral()
def read_gaussians(
    path: Path, info: ArtifactInfo, timestep: float, class_label: int | None = None
) -> ClassGaussians:
    """Read the class Gaussians of one timestep, in float32, or that of one class.

    Raises:
        ArtifactFormatError: A tensor is missing or is not what `info` says.
        StatisticsError: A value is not finite or a variance is negative.
    """
    shape = (len(info.classes), *info.latent_shape)
    names = {f"t{timestep}.mean": shape, f"t{timestep}.variance": shape, "count": shape[:1]}
    gaussians = ClassGaussians(*_read(path, info, names, class_label))
    _check_count(path, info, gaussians.count, class_label)
    return gaussians


@neutral()
def read_modes(path: Path, info: ArtifactInfo, timestep: float, class_label: int | None = None) -> ClassModes:
    """Read the modes of one timestep, in float32, or those of one class; errors as `read_gaussians`."""
    classes, modes = len(info.classes), info.num_modes
    names = {
        f"t{timestep}.modes.mean": (classes, modes, *info.latent_shape),
        f"t{timestep}.modes.variance": (classes, *info.latent_shape),
        "modes.count": (classes, modes),
    }
    found = ClassModes(*_read(path, info, names, class_label))
    _check_count(path, info, found.count.sum(dim=1), class_label)
    return found


def _read(
    path: Path, info: ArtifactInfo, names: dict[str, tuple[int, ...]], class_label: int | None
) -> list[torch.Tensor]:
    rows = slice(None) if class_label is None else slice(class_label, class_label + 1)
    tensors = []
    read_header(path)
    try:
        with safe_open(path, framework="pt") as file:

            def read(name: str, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
                found = file.get_slice(name)
                if tuple(found.get_shape()) != shape or found.get_dtype() != dtype:
                    raise ArtifactFormatError(
                        f"{path}: {name} is {found.get_dtype()} {found.get_shape()}; accepted: "
                        f"{dtype} {list(shape)}"
                    )
                tensor: torch.Tensor = found[rows]
                return tensor

            for name, shape in names.items():
                if name.endswith("count"):
                    tensors.append(read(name, shape, "I64"))
                elif info.dtype == "int8":
                    values = read(name, shape, "U8" if is_variance(name) else "I8")
                    scale = read(scale_name(name), (*shape[:-2], 1, 1), "F32")
                    tensors.append(dequantize(name, values, scale))
                else:
                    tensors.append(read(name, shape, SAFETENSORS_DTYPES[info.dtype]).float())
    except (SafetensorError, OSError) as error:
        raise ArtifactFormatError(f"{path}: {error}; download the artifact again") from error
    return tensors


def _check_count(path: Path, info: ArtifactInfo, count: torch.Tensor, class_label: int | None) -> None:
    expected = info.counts if class_label is None else info.counts[class_label : class_label + 1]
    if tuple(count.tolist()) != expected:
        raise ArtifactFormatError(
            f"{path}: counts are not those of the description, {list(expected[:10])}; download the artifact "
            "again"
        )
