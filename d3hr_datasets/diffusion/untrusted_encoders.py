"""What reads prompts, looked at before it is loaded: of known classes, and no larger than its weights.

In: the text encoders and tokenizers of a model in diffusers' layout. Out: nothing, or an error before
transformers opens any of their files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.diffusion.kinds.kind import ModelKind
from d3hr_datasets.diffusion.layout import ENCODER_WEIGHTS, INDEX, TOKENIZER_FILES, TOKENIZERS
from d3hr_datasets.diffusion.untrusted_models import check_config, check_shards
from d3hr_datasets.errors import ModelFormatError, ModelNotFoundError
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.untrusted_files import (
    MAX_CONFIG_BYTES,
    check_file,
    check_model_file,
    is_file,
    read_header,
    read_json,
)

MAX_INTEGER = 2**20  # of a configuration: vocabularies
MAX_LENGTH = 1024  # of a list: layers
ENCODER_CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel", "Gemma2Model")
TOKENIZER_CLASSES = tuple(
    f"{name}Tokenizer{fast}" for name in ("CLIP", "T5", "Gemma") for fast in ("", "Fast")
)


def import_encoders(kind: ModelKind) -> Any:
    """Return transformers, once it is sure that all is there that reads prompts.

    Raises:
        MissingExtraError: It, or a library of its tokenizers, is not installed.
    """
    with needs_extra("text", f"reading prompts for {kind.name} needs transformers and its tokenizers"):
        import google.protobuf  # noqa: F401
        import sentencepiece  # noqa: F401
        import transformers
    return transformers


def encoder_classes(kind: ModelKind, index: dict[str, Any], model: object) -> dict[str, str]:
    """Return the class of each encoder and tokenizer that a model has, by part.

    Args:
        kind: Of the model.
        index: What its `model_index.json` says.
        model: How errors name it.

    Raises:
        ModelFormatError: A part is missing, or of a class that is not known.
    """
    classes = {}
    for part in kind.encoders:
        entry = index.get(part)
        if entry in (None, [None, None]) and part in kind.optional_encoders:
            continue
        accepted = TOKENIZER_CLASSES if part in TOKENIZERS else ENCODER_CLASSES
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == "transformers"):
            raise ModelFormatError(
                f"{INDEX} of {model}: {part} is {entry!r:.80}; accepted: ['transformers', CLASS]"
            )
        if entry[1] not in accepted:
            raise ModelFormatError(
                f"{INDEX} of {model}: {part} is of {entry[1]!r:.80}; accepted: {', '.join(accepted)}"
            )
        classes[part] = str(entry[1])
    return classes


def count_encoder_parameters(name: str, folder: Path) -> int:
    """Return how many parameters the configuration of a text encoder describes.

    Args:
        name: Its class of transformers, one of `ENCODER_CLASSES`.
        folder: Its folder.

    Raises:
        ArtifactFormatError: It is no JSON object.
        ModelFormatError: Something in it is too large, or it describes no such encoder.
    """
    import transformers

    config = check_config(folder / "config.json", MAX_INTEGER, MAX_LENGTH)
    encoder = getattr(transformers, name)
    try:
        with torch.device("meta"):  # shapes only
            model = encoder(encoder.config_class(**config))
    except Exception as error:  # of any layer that does not take the configuration
        raise ModelFormatError(f"{folder} describes no {name}: {error}") from error
    return sum(parameter.numel() for parameter in model.parameters())


def check_encoders(kind: ModelKind, folder: Path) -> dict[str, str]:
    """Check all that reads prompts, and return `encoder_classes`.

    Args:
        kind: Of the model.
        folder: Of the model.

    Raises:
        ArtifactFormatError: A file is not what its name says.
        ModelNotFoundError: A part is not there, though `model_index.json` names it.
        ModelFormatError: A part is of another class, or its configuration describes a larger one.
    """
    classes = encoder_classes(kind, read_json(folder / INDEX, max_bytes=MAX_CONFIG_BYTES), folder)
    for part, name in classes.items():
        if part in TOKENIZERS:
            paths = [folder / part / file for file in TOKENIZER_FILES if is_file(folder / part / file)]
            if not paths:
                raise ModelNotFoundError(_missing(kind, folder, part))
            for path in paths:
                check_model_file(path)
            continue
        weights = sorted((folder / part).glob(f"{ENCODER_WEIGHTS}*.safetensors"))
        if not weights or not is_file(folder / part / "config.json"):
            raise ModelNotFoundError(_missing(kind, folder, part))
        check_shards(folder / part, weights)
        for path in weights:
            read_header(path)
        room = sum(check_file(path).st_size for path in weights)
        parameters = count_encoder_parameters(name, folder / part)
        if parameters > room:
            raise ModelFormatError(
                f"{folder / part} describes an encoder of {parameters:,} parameters, and its weights are "
                f"{room:,} bytes; download or save it again"
            )
    return classes


def _missing(kind: ModelKind, folder: Path, part: str) -> str:
    without = f", or write [null, null] for {part} there, without which {kind.name} works"
    return (
        f"{folder / part} is missing or empty, and {INDEX} names it; download or save the model again, with "
        f"safetensors{without if part in kind.optional_encoders else ''}"
    )
