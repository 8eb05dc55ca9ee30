"""Statistics in the reference code's format -> an artifact.

In: a folder with WNID.pt for each class, each with `mean` and `variance` (15, C x H x W) over the timesteps
480, 500, ..., 760 of a grid of 50 steps. Out: an artifact. Files are loaded with `weights_only`: no code in
them is run.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.artifact import Artifact
from d3hr_datasets.artifact_info import ArtifactInfo
from d3hr_datasets.class_list import ClassList
from d3hr_datasets.config import InversionConfig, check_int
from d3hr_datasets.errors import ConfigError, StatisticsError
from d3hr_datasets.gaussians import ClassGaussians
from d3hr_datasets.model_size import check_torch_file
from d3hr_datasets.safe_files import is_safe_name, open_file
from d3hr_datasets.text import printable

TIMESTEPS = tuple(range(480, 780, 20))
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_OVERHEAD = 2**20  # bytes
# The settings of the reference code: guidance both ways, the model asked at the target of a step, samples of
# the posterior. It starts at timestep 0 and not below, one evaluation less, which no setting here repeats.
INVERSION = {"num_inference_steps": 50, "guidance_scale": 4.0, "noise_timestep": "target", "latent": "sample"}


def import_statistics(folder: str | Path, output: str | Path, info: ArtifactInfo) -> Artifact:
    """Make an artifact of statistics that the reference code saved.

    Args:
        folder: Holds a file WNID.pt, or NAME.pt, for each class.
        output: Folder of the artifact.
        info: What to write; its `inversion.timesteps` are those that are kept.

    Returns:
        The artifact, with float32 read from what is stored there (float16 in the reference).

    Raises:
        StatisticsError: A file is missing, no such file, of another shape, or not finite.
        ConfigError: A timestep is not among those 15.
    """
    for timestep in info.inversion.timesteps:
        if timestep not in TIMESTEPS:
            raise ConfigError(f"timestep {timestep} is not in these statistics; accepted: {list(TIMESTEPS)}")
    shape = (len(TIMESTEPS), *info.latent_shape)
    parts: dict[str, list[torch.Tensor]] = {"mean": [], "variance": []}
    places = [TIMESTEPS.index(timestep) for timestep in info.inversion.timesteps]
    # Two tensors of at most eight bytes an element, beside what torch.save writes around them.
    max_bytes = 2 * 8 * math.prod(shape) + MAX_OVERHEAD
    for name in info.wnids or info.classes:
        values = _load(_path(Path(folder), name), max_bytes)
        for part, tensors in parts.items():
            tensors.append(_part(_path(Path(folder), name), values, part, shape)[places])
    mean, variance = (torch.stack(tensors, dim=1) for tensors in parts.values())
    count = torch.tensor(info.counts)
    gaussians = {
        timestep: ClassGaussians(mean[place], variance[place], count)
        for place, timestep in enumerate(info.inversion.timesteps)
    }
    return Artifact.save(output, info, gaussians)


def imported_inversion(timesteps: Sequence[int], num_train_timesteps: int) -> InversionConfig:
    """Return the settings the reference inverts with."""
    return InversionConfig(tuple(timesteps), num_train_timesteps=num_train_timesteps, **INVERSION)  # type: ignore[arg-type]


def image_counts(values: Any, classes: ClassList) -> tuple[int, ...]:
    """Return the images behind each class: one number for all, or a number by WordNet ID or name.

    Raises:
        ConfigError: A class has none, or a number is below two.
    """
    if not isinstance(values, Mapping):
        return (check_int("the number of images per class", values, 2),) * len(classes.names)
    counts = []
    for label, name in enumerate(classes.names):
        keys = [name] if classes.wnids is None else [classes.wnids[label], name]
        found = next((values[key] for key in keys if key in values), None)
        if found is None:
            raise ConfigError(f"the numbers of images have no entry {' or '.join(map(repr, keys))}")
        counts.append(check_int(f"the number of images of {name!r}", found, 2))
    return tuple(counts)


def _path(folder: Path, name: str) -> Path:
    """Return the file of a class, which must be one of the folder."""
    if "/" in name or not is_safe_name(f"{name}.pt"):
        raise StatisticsError(
            f"the class {name!r} is no name of a file; accepted: WordNet IDs or names such as 'n01440764.pt'"
        )
    return folder / f"{name}.pt"


def _load(path: Path, max_bytes: int) -> Any:
    if not path.exists():
        raise StatisticsError(
            f"{path} is missing; the folder needs a file WNID.pt for each class of the list"
        )
    try:
        check_torch_file(path, max_bytes)
        with open_file(path, max_bytes) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
            pickle.UnpicklingError, zipfile.BadZipFile) as error:  # fmt: skip
        raise StatisticsError(
            f"{path} is damaged, or is no file of tensors alone, which is all that is read: "
            f"{printable(str(error).splitlines()[0] if str(error) else type(error).__name__)}"
        ) from error


def _part(path: Path, values: Any, part: str, shape: tuple[int, ...]) -> torch.Tensor:
    tensor = values.get(part) if isinstance(values, dict) else None
    expected = (shape[0], shape[1] * shape[2] * shape[3])
    if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) not in (expected, shape):
        found = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise StatisticsError(f"{path}: {part!r} is {found}; accepted: a tensor {expected}, as of this model")
    is_plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not is_plain or tensor.dtype not in DTYPES:
        raise StatisticsError(
            f"{path}: {part!r} is {tensor.dtype}, {tensor.layout}, on {tensor.device}; accepted: a dense "
            f"tensor in memory, of {' or '.join(map(str, DTYPES))}"
        )
    tensor = tensor.reshape(shape).float()
    if not tensor.isfinite().all() or (part == "variance" and (tensor < 0).any()):
        raise StatisticsError(
            f"{path}: {part!r} has values that are not finite or negative; the reference keeps moments in "
            "float16, which overflows: build them again"
        )
    return tensor
