"""D3HR's own code, the reference: its settings, and statistics in its format -> an artifact.

In: a folder with WNID.pt for each class, each with `mean` and `variance` (15, C x H x W) over the timesteps
480, 500, ..., 760 of a grid of 50 steps. Out: an artifact. Files are loaded with `weights_only`: no code in
them is run. docs/reference-differences.md says what no setting repeats.
"""

from __future__ import annotations

import dataclasses
import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.gaussians import ClassGaussians
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.model import check_fits
from d3hr_datasets.build.artifact_folder import written_folder
from d3hr_datasets.build.build_settings import BuildSettings
from d3hr_datasets.build.model_facts import describe_artifact, image_frame, model_classes, model_place
from d3hr_datasets.build.output_folders import check_output
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.folders import file_stem
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.model_folder import read_kind
from d3hr_datasets.diffusion.untrusted_models import check_torch_file
from d3hr_datasets.errors import ConfigError, ModelFormatError, StatisticsError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.text import printable
from d3hr_datasets.io.untrusted_files import open_file
from d3hr_datasets.numerics.torch_settings import neutral

TIMESTEPS = tuple(range(480, 780, 20))
STEPS, GUIDANCE_SCALE = 50, 4.0  # of the reference, both ways
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_OVERHEAD = 2**20  # bytes


def import_artifact(
    folder: str | Path,
    model: str,
    output: str | Path,
    counts: Any,
    settings: BuildSettings,
    class_list: str | None = None,
    allow_bin: bool = False,
) -> Artifact:
    """Make an artifact of statistics that the reference code saved, and of their model.

    Args:
        folder: As `import_statistics`.
        model: A folder in diffusers' layout, or "ORG/NAME@COMMIT".
        output: Folder of the artifact.
        counts: Images behind each class, as `image_counts`.
        settings: Timesteps to keep, how to decode, name and licence; the reference inverts as it does.
        class_list: The model's classes, as `ClassOptions.class_list`.
        allow_bin: Also load a model folder's .bin weights.

    Raises:
        ConfigError: Nothing says which classes the model knows, or a value is not accepted.
        ModelFormatError: The model is none of these statistics; likewise `ModelNotFoundError`.
        StatisticsError: As `import_statistics`.
    """
    where, revision = model_place(model)
    output = expand_user(output)
    check_output(output)
    kind = read_kind(where, revision)
    if kind.takes_prompts:
        raise ModelFormatError(
            f"the model {model} is of the kind {kind.name}, and statistics of D3HR's code are of a model of "
            "class "
            "labels (DiT); give the model that they were made with"
        )
    diffusion = LatentDiffusion.from_pretrained(where, revision=revision, device="cpu", allow_bin=allow_bin)
    classes = model_classes(model, class_list)
    if classes is None:
        raise ConfigError("nothing says which classes the model knows; give --class-list")
    schedule = diffusion.schedule
    inversion = imported_inversion(settings.times(schedule), schedule.num_train_timesteps)
    info = describe_artifact(
        model,
        diffusion,
        classes,
        image_frame(model, diffusion.sample_size)[0],
        inversion,
        settings.decode(inversion),
        name=settings.name_of(output),
        counts=image_counts(counts, classes),
        source={"name": Path(folder).resolve().name, "imported": "statistics in the format of D3HR's code"},
        producer=settings.producer,
    )
    info = settings.with_budgets(info)
    check_fits(diffusion, info)
    noted = {} if settings.license_name is None else {"license": settings.license_name}
    with written_folder(output, model, diffusion, noted=noted) as place:
        import_statistics(folder, place, info)
    return Artifact.load(output)


@neutral()
def import_statistics(folder: str | Path, output: str | Path, info: ArtifactInfo) -> Artifact:
    """Make an artifact of statistics that the reference code saved.

    Args:
        folder: Holds a file WNID.pt, or NAME.pt, for each class. A name that is none of a file is spelled
            as exports spell it: "T_shirt_top.pt" for "T-shirt/top".
        output: Folder of the artifact.
        info: What to write; its `inversion.timesteps` are those that are kept.

    Returns:
        The artifact, with float32 read from what is stored there (float16 in the reference).

    Raises:
        StatisticsError: A file is missing, no such file, of another shape, or not finite.
        ConfigError: A timestep is not among those 15, or a class's name does not tell its file from others.
    """
    for timestep in info.inversion.timesteps:
        if timestep not in TIMESTEPS:
            raise ConfigError(f"timestep {timestep} is not in these statistics; accepted: {list(TIMESTEPS)}")
    shape = (len(TIMESTEPS), *info.latent_shape)
    parts: dict[str, list[torch.Tensor]] = {"mean": [], "variance": []}
    places = [TIMESTEPS.index(timestep) for timestep in info.inversion.timesteps]
    # Two tensors of at most eight bytes an element, beside what torch.save writes around them.
    max_bytes = 2 * 8 * math.prod(shape) + MAX_OVERHEAD
    for path in _files(Path(folder), info):
        values = _load(path, max_bytes)
        for part, tensors in parts.items():
            tensors.append(_part(path, values, part, shape)[places])
    mean, variance = (torch.stack(tensors, dim=1) for tensors in parts.values())
    count = torch.tensor(info.counts)
    gaussians = {
        timestep: ClassGaussians(mean[place], variance[place], count)
        for place, timestep in enumerate(info.inversion.timesteps)
    }
    return Artifact.save(output, info, gaussians)


def imported_inversion(
    timesteps: Sequence[float], num_train_timesteps: int, seed: int = 0
) -> InversionConfig:
    """Return how the reference inverts: guided, the model asked at the target of a step, from timestep 0.

    `seed` is of the samples of the posterior, which the reference draws without one.
    """
    return InversionConfig(
        tuple(timesteps),
        STEPS,
        num_train_timesteps,
        GUIDANCE_SCALE,
        noise_timestep="target",
        latent="sample",
        seed=seed,
        first_timestep=0,
        resizing="bilinear",
    )


def as_reference(info: ArtifactInfo) -> ArtifactInfo:
    """Return a description with the reference's inversion and decoding of its timesteps, and no modes."""
    inversion = info.inversion
    return dataclasses.replace(
        info,
        inversion=imported_inversion(inversion.timesteps, inversion.num_train_timesteps, inversion.seed),
        decode=DecodeConfig(
            info.decode.timestep, STEPS, GUIDANCE_SCALE, reference_off_by_one=True, reference_last_step=True
        ),
        num_modes=1,
    )


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


def _files(folder: Path, info: ArtifactInfo) -> list[Path]:
    """Return the file of each class."""
    names = info.wnids or info.classes
    try:
        stems = [file_stem(name) for name in names]
    except ValueError as error:
        raise ConfigError(f"{error}; name it in another --class-list") from error
    twice = [name for name, stem in zip(names, stems, strict=True) if stems.count(stem) > 1]
    if twice:
        raise ConfigError(
            f"the classes {twice[:5]} would all be in one file, {file_stem(twice[0])}.pt; give a "
            "--class-list with WordNet IDs, or with names that differ in letters or digits"
        )
    return [folder / f"{stem}.pt" for stem in stems]


def _load(path: Path, max_bytes: int) -> Any:
    if not path.exists():
        raise StatisticsError(
            f"{path} is missing; the folder needs a file WNID.pt for each class of the list"
        )
    try:
        check_torch_file(path, max_bytes)
        with open_file(path, max_bytes) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
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
