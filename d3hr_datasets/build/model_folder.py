"""The files of a diffusion model for a build: where it is, its classes, its copy in an artifact.

In: a folder in diffusers' layout or "ORG/NAME@COMMIT". Out: a `ModelReference`, the model, its classes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.matching import parse_class_list, read_class_list
from d3hr_datasets.config.settings import ModelReference
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.loading import INDEX, WEIGHTS, read_label_map, read_padding
from d3hr_datasets.errors import (
    ArtifactIntegrityError,
    ConfigError,
    ForeignFileError,
    ModelFormatError,
    ModelNotFoundError,
)
from d3hr_datasets.io.foreign import check_file, is_folder, path_inside
from d3hr_datasets.io.paths import expand_user

# What diffusers writes of a model and reads; a folder may hold anything else, which is nobody's business.
PARTS = {
    "transformer": ("config.json", f"{WEIGHTS}.safetensors", f"{WEIGHTS}.safetensors.index.json"),
    "vae": ("config.json", f"{WEIGHTS}.safetensors", f"{WEIGHTS}.safetensors.index.json"),
    "scheduler": ("scheduler_config.json",),
}
CARD = "README.md"  # it says which licence the model has
# What an artifact's folder may hold before it is built.
EXPECTED = {"d3hr.json", "statistics.safetensors", "model", "README.md", ".gitattributes", ".gitignore"}


def model_reference(model: str) -> ModelReference:
    """Return what an artifact says of a model: a folder goes into it, as `model/`.

    Raises:
        ModelNotFoundError: It is neither a folder nor of the form ORG/NAME@COMMIT.
        ConfigError: The commit is not 40 hexadecimal digits.
    """
    if is_folder(expand_user(model)):
        return ModelReference(path="model")
    repo_id, separator, revision = model.partition("@")
    if not separator or repo_id.count("/") != 1:
        raise ModelNotFoundError(
            f"there is no folder {model!r:.300}; accepted: a folder in diffusers' layout, or ORG/NAME@COMMIT "
            "on the Hub, with all 40 digits of the commit"
        )
    return ModelReference(repo_id, revision)


def load_model(
    model: str, device: torch.device | str | None, dtype: str, allow_bin: bool = False
) -> LatentDiffusion:
    """Load a model.

    Raises:
        ModelNotFoundError: It is missing, or has .bin weights only and these are not allowed.
        ModelFormatError: It is not one this library can use.
    """
    reference = model_reference(model)
    return LatentDiffusion.from_pretrained(
        expand_user(model) if reference.repo_id is None else reference.repo_id,
        revision=reference.revision,
        device=device,
        torch_dtype=getattr(torch, dtype),
        allow_bin=allow_bin,
    )


def check_output(output: Path) -> None:
    """Check that a folder is an artifact's or free: all files in it become part of the artifact.

    Raises:
        ConfigError: It has other files.
    """
    if output.is_dir():
        strangers = sorted(path.name for path in output.iterdir() if path.name not in EXPECTED)
        strangers = [name for name in strangers if not name.startswith(".")]
        if strangers:
            raise ConfigError(f"{output} has other files in it ({strangers[:5]}); give a folder of its own")
        return
    existing = next(place for place in (output.absolute(), *output.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"{existing} is no folder; give another --output")


def check_places(source: str, output: Path, work: Path) -> None:
    """Check that neither images nor finished chunks would become part of what they are not.

    Raises:
        ConfigError: `work` is in the artifact, or the artifact or `work` in the folder of the images.
    """
    if work.resolve().is_relative_to(output.resolve()):
        raise ConfigError(f"the folder {work} for finished chunks is in the artifact; give another --work")
    images = Path(source).resolve()
    for name, place in (("--output", output), ("--work", work)):
        if is_folder(images) and place.resolve().is_relative_to(images):
            raise ConfigError(f"{place} is in the folder of the images, {source}; give another {name}")


def copy_model(model: str, diffusion: LatentDiffusion, output: Path) -> None:
    """Put a model folder into an artifact as `model/`; does nothing for a model on the Hub.

    What was in `model/` before is replaced as a whole, so that nothing of another model stays; a copy that is
    cut short changes nothing. Only the files of a model are copied, and none that lies outside its folder.
    Weights that are .bin files are saved as safetensors.

    Raises:
        ModelFormatError: A file of the model is a link out of its folder, or no regular file.
    """
    if model_reference(model).path is None:
        return
    source, target = expand_user(model), output / "model"
    if source.resolve() == target.resolve():
        return
    new, old = output / ".model-new", output / ".model-old"  # those of a killed run go, too
    if old.exists() and not target.exists():  # killed between the two renames below
        old.rename(target)
    for folder in (new, old):
        if folder.is_symlink():
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)
    try:
        for part, patterns in PARTS.items():
            (new / part).mkdir(parents=True)
            for pattern in patterns:
                for path in sorted((source / part).glob(pattern)):
                    _copy(source, f"{part}/{path.name}", new)
        for part, module in (("transformer", diffusion.transformer), ("vae", diffusion.vae)):
            if not list((new / part).glob("*.safetensors")):
                module.save_pretrained(new / part)
        for name in (INDEX, CARD):
            if (source / name).exists():
                _copy(source, name, new)
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _copy(source: Path, name: str, target: Path) -> None:
    try:
        path = path_inside(source, name)
        check_file(path)
    except (ArtifactIntegrityError, ForeignFileError) as error:
        raise ModelFormatError(f"the model's {name} does not become part of an artifact: {error}") from error
    shutil.copy(path, target / name)


def model_classes(model: str, class_list: str | None) -> ClassList | None:
    """Return the classes of a model: those of `class_list`, else its own label map, else None.

    Raises:
        ConfigError: The list or the label map is none.
        ModelNotFoundError: The Hub cannot be asked for the label map.
        ModelFormatError: It cannot be read, or the model's label map tells another order than the list.
    """
    reference = model_reference(model)
    where = expand_user(model) if reference.repo_id is None else reference.repo_id
    label_map = read_label_map(where, reference.revision)
    if class_list is None:
        return parse_class_list(label_map, f"the label map of {model}") if label_map else None
    classes = read_class_list(class_list)
    classes.check_label_map(label_map, f"the model {model}")
    return classes


def image_frame(model: str, sample_size: int, image_size: int | None = None) -> tuple[int, int, str | None]:
    """Return image size and frame to build with: those the model was trained with, unless a size is given.

    Args:
        model: The model.
        sample_size: Side of its images, frame included.
        image_size: Side to use whatever the model says.

    Returns:
        Image size, padding, and what to tell the user where the model says otherwise, else None.

    Raises:
        ConfigError: No frame makes images of `image_size` those of the model.
        ModelNotFoundError: The Hub cannot be asked what the model was trained with.
        ModelFormatError: What it was trained with cannot be read.
    """
    reference = model_reference(model)
    where = expand_user(model) if reference.repo_id is None else reference.repo_id
    trained = read_padding(where, reference.revision, sample_size)
    if image_size is None:
        padding = trained or 0
        return sample_size - 2 * padding, padding, None
    if image_size > sample_size or (sample_size - image_size) % 2:
        raise ConfigError(
            f"images of {image_size} pixels do not fit the model's {sample_size} with an even frame; give "
            f"--image-size {sample_size}, or less by an even number"
        )
    padding = (sample_size - image_size) // 2
    if trained is None or trained == padding:
        return image_size, padding, None
    return (
        image_size,
        padding,
        f"--image-size {image_size} makes a frame of {padding} pixels, but the model was trained with one "
        f"of {trained}, on images of {sample_size - 2 * trained} pixels; leave it out to build on these",
    )
