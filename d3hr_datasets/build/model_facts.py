"""What a diffusion model says for a build: where it is, its classes, the frame of its images.

In: a folder in diffusers' layout or "ORG/NAME@COMMIT". Out: a `ModelReference`, a class list, a frame, and
with them the description of an artifact of that model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.facts import CARD, MAX_CARD_BYTES, license_of_card
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.info_texts import MAX_TEXT
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.matching import parse_class_list, read_class_list
from d3hr_datasets.config.model_reference import ModelReference
from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
from d3hr_datasets.diffusion.adapters import FILES as ADAPTER_FILES
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.layout import PARTS
from d3hr_datasets.diffusion.model_folder import read_label_map, read_padding
from d3hr_datasets.errors import ConfigError, ModelNotFoundError
from d3hr_datasets.io.hub_files import fetch_file
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.text import check_text, printable
from d3hr_datasets.io.untrusted_files import is_folder, read_file
from d3hr_datasets.sources.image_files import file_state


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


def whole_name(model: str | Path) -> str:
    """Return the whole path of a model's folder, which names it from any folder; one on the Hub as it is.

    Raises:
        ModelNotFoundError: As `model_reference`; likewise `ConfigError`.
    """
    is_local = model_reference(str(model)).path is not None
    return str(expand_user(model).absolute()) if is_local else str(model)


def model_state(model: str, adapter: Path | None = None) -> str:
    """Return what tells the files of a model's folder, and of an adapter's, from ones that replace them.

    Of a model on the Hub the commit tells it.
    """
    names: list[tuple[Path, str]] = []
    if model_reference(model).path is not None:
        names += [(expand_user(model), f"{part}/{name}") for part, found in PARTS.items() for name in found]
    if adapter is not None:
        names += [(adapter, name) for name in ADAPTER_FILES]
    files = sorted((path, folder) for folder, name in names for path in folder.glob(name))
    return "\n".join(f"{path.relative_to(folder)} {file_state(path)}" for path, folder in files)


def model_license(model: str) -> tuple[str | None, str | None]:
    """Return the licence that the card of a model on the Hub names, and what to say where it is not known.

    The card of a model in a folder is copied with it, and read there.
    """
    reference = model_reference(model)
    if reference.repo_id is None:
        return None, None
    try:
        card = fetch_file(
            reference.repo_id, CARD, MAX_CARD_BYTES, repo_type="model", revision=reference.revision
        )
        found = license_of_card(read_file(card, MAX_CARD_BYTES).decode("utf-8"))
        reason = "its card names none"
        if found is not None:
            return check_text("the licence of the model", found, MAX_TEXT), None
    except Exception as error:  # of the client, of YAML, of what the card says in it
        reason = printable(" ".join(str(error).split()) or type(error).__name__)[:200]
    return None, (
        f"the licence of the model {reference.repo_id} is not known ({reason}): see its page, and say on "
        "the card "
        "of the artifact what it asks for"
    )


def model_place(model: str) -> tuple[Path | str, str | None]:
    """Return where a model is loaded from: its folder and None, or its repository and commit.

    Raises:
        ModelNotFoundError: As `model_reference`; likewise `ConfigError`.
    """
    reference = model_reference(model)
    return (
        (expand_user(model), None) if reference.repo_id is None else (reference.repo_id, reference.revision)
    )


def model_classes(model: str, class_list: str | None) -> ClassList | None:
    """Return the classes of a model: those of `class_list`, else its own label map, else None.

    Raises:
        ConfigError: The list or the label map is none.
        ModelNotFoundError: The Hub cannot be asked for the label map.
        ModelFormatError: It cannot be read, or the model's label map tells another order than the list.
    """
    label_map = read_label_map(*model_place(model))
    if class_list is None:
        return parse_class_list(label_map, f"the label map of {model}") if label_map else None
    classes = read_class_list(class_list)
    classes.check_label_map(label_map, f"the model {model}")
    return classes


def image_frame(model: str, sample_size: int, image_size: int | None = None) -> tuple[int, str | None]:
    """Return the black frame to build with: those the model was trained with, unless a size is given.

    Args:
        model: The model.
        sample_size: Side of its images, frame included.
        image_size: Side to use whatever the model says.

    Returns:
        Padding, and what to tell the user where the model says otherwise, else None.

    Raises:
        ConfigError: No frame makes images of `image_size` those of the model.
        ModelNotFoundError: The Hub cannot be asked what the model was trained with.
        ModelFormatError: What it was trained with cannot be read.
    """
    trained = read_padding(*model_place(model), sample_size)
    if image_size is None:
        padding = trained or 0
        return padding, None
    if image_size > sample_size or (sample_size - image_size) % 2:
        raise ConfigError(
            f"images of {image_size} pixels do not fit the model's {sample_size} with an even frame; give "
            f"--image-size {sample_size}, or less by an even number"
        )
    padding = (sample_size - image_size) // 2
    if trained is None or trained == padding:
        return padding, None
    return (
        padding,
        f"--image-size {image_size} makes a frame of {padding} pixels, but the model was trained with one "
        f"of {trained}, on images of {sample_size - 2 * trained} pixels; leave it out to build on these",
    )


def describe_artifact(
    model: str,
    diffusion: LatentDiffusion,
    classes: ClassList,
    padding: int,
    inversion: InversionConfig,
    decode: DecodeConfig,
    **others: Any,
) -> ArtifactInfo:
    """Return the description of an artifact of a model.

    Args:
        model: The model.
        diffusion: The same, loaded.
        classes: Its classes.
        padding: Black frame of its images, in pixels.
        inversion: How images are inverted.
        decode: How to decode.
        others: What no model says: `name`, `source`, `producer`, `counts` where they are known, ...

    Raises:
        ConfigError: A field has a value that is not accepted.
    """
    return ArtifactInfo(
        classes=classes.names,
        wnids=classes.wnids,
        image_size=diffusion.sample_size - 2 * padding,
        image_mode="L" if diffusion.image_channels == 1 else "RGB",
        padding=padding,
        latent_shape=diffusion.latent_shape,
        model=model_reference(model),
        inversion=inversion,
        decode=decode,
        **others,
    )
