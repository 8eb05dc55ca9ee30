"""Prompts -> what a model is conditioned on: text encoders are loaded, asked once, and released.

In: a folder in diffusers' layout and a prompt for each class in use. Out: `PromptEmbeddings`. The pipeline's
own `encode_prompt` does the work, so that a prompt means here what it means to diffusers.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from d3hr_datasets.diffusion.conditioning import Conditioning, PromptEmbeddings
from d3hr_datasets.diffusion.kinds.kind import Inputs, ModelKind
from d3hr_datasets.diffusion.layout import INDEX
from d3hr_datasets.diffusion.loading import ModelParts
from d3hr_datasets.diffusion.untrusted_encoders import check_encoders, import_encoders
from d3hr_datasets.diffusion.untrusted_models import check_config
from d3hr_datasets.errors import ArtifactFormatError, ConfigError, D3HRError, ModelFormatError
from d3hr_datasets.io.untrusted_files import MAX_CONFIG_BYTES, read_json
from d3hr_datasets.numerics.torch_settings import neutral

BATCH = 16  # prompts that are read at a time
MAX_TOKENS = 1024  # of a prompt that CLIP reads; 77 in all models that are known

# Parts of some pipelines that have no say in what a prompt means.
OTHER_PARTS = ("safety_checker", "feature_extractor", "image_encoder")


def prompts_of(
    parts: ModelParts,
    prompts: Mapping[int, str] | None,
    negative_prompt: str | None,
    num_classes: int | None,
    conditioning: Conditioning | None,
    device: torch.device | str,
) -> Conditioning | None:
    """Return what a loaded model is told of classes; None for the labels that it was trained with.

    Args:
        parts: The model; its precision is that of the embeddings.
        prompts: By class label.
        negative_prompt: To guide by.
        num_classes: Where there are more classes than `prompts`.
        conditioning: What was made of prompts before, instead of them.
        device: Where encoders run.

    Raises:
        ConfigError: The model takes class labels, or no negative prompt, and is given some.
        MissingExtraError: A library of the text encoders is not installed.
        ModelFormatError: An encoder or a tokenizer is not what its library wrote.
    """
    if not parts.kind.takes_prompts and (prompts or negative_prompt or conditioning):
        raise ConfigError(
            f"the diffusion model {parts.folder} is of the kind {parts.kind.name}, which takes class labels; "
            "leave out the prompts"
        )
    if negative_prompt and parts.kind.embeds_guidance(parts.network):
        raise ConfigError(
            f"the diffusion model {parts.folder} ({parts.kind.name}) takes the scale of guidance as an "
            f"input, and no negative prompt, as {negative_prompt!r:.80} is one; leave it out"
        )
    if prompts is None or not parts.kind.takes_prompts:
        return conditioning
    classes = num_classes or len(prompts)
    dtype = parts.network.dtype
    return encode_prompts(parts.kind, parts.folder, prompts, negative_prompt, classes, device, dtype)


@neutral()
def encode_prompts(
    kind: ModelKind,
    folder: Path,
    prompts: Mapping[int, str],
    negative_prompt: str | None,
    num_classes: int,
    device: torch.device | str = "cpu",
    torch_dtype: torch.dtype = torch.float32,
) -> PromptEmbeddings:
    """Return what a model's text encoders make of prompts; they are gone from memory afterwards.

    Args:
        kind: Of the model.
        folder: Of the model, in diffusers' layout.
        prompts: By class label; those of the classes in use.
        negative_prompt: To guide by; None for what the pipeline takes where none is given.
        num_classes: Of the data set.
        device: Where encoders run.
        torch_dtype: Their precision, and that of what they make.

    Raises:
        MissingExtraError: A library of the text encoders is not installed.
        ModelFormatError: An encoder or a tokenizer is not what its library wrote.
    """
    pipeline = _open_encoders(kind, folder, device, torch_dtype)
    embeddings: dict[int, Inputs] = {}
    negative: Inputs | None = None
    labels = sorted(prompts)
    try:
        for start in range(0, len(labels), BATCH):
            batch = labels[start : start + BATCH]
            found, negative = kind.encode_prompts(
                pipeline, [prompts[label] for label in batch], negative_prompt
            )
            for row, label in enumerate(batch):
                embeddings[label] = {name: values[row : row + 1].cpu() for name, values in found.items()}
    finally:
        del pipeline
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if negative is not None:
        negative = {name: values.cpu() for name, values in negative.items()}
    return PromptEmbeddings(num_classes, embeddings, negative)


def _open_encoders(
    kind: ModelKind, folder: Path, device: torch.device | str, torch_dtype: torch.dtype
) -> Any:
    """Return diffusers' pipeline of a model with its text encoders alone."""
    import diffusers

    import_encoders(kind)
    try:
        classes = check_encoders(kind, folder)
        name = read_json(folder / INDEX, max_bytes=MAX_CONFIG_BYTES)["_class_name"]
        network = check_config(folder / kind.network[0] / "config.json")
    except ArtifactFormatError as error:
        raise ModelFormatError(f"the text encoders of {folder} are not accepted: {error}") from error
    pipeline_class = getattr(diffusers, name)
    parameters = inspect.signature(pipeline_class.__init__).parameters
    options: dict[str, Any] = dict.fromkeys((kind.network[0], "vae", "scheduler"))
    options |= {part: None for part in OTHER_PARTS if part in parameters}
    options |= {part: None for part in kind.encoders if part not in classes}
    if "requires_safety_checker" in parameters:
        options["requires_safety_checker"] = False
    try:
        with _quietly():
            pipeline = pipeline_class.from_pretrained(
                str(folder),
                torch_dtype=torch_dtype,
                local_files_only=True,
                use_safetensors=True,
                **options,
            ).to(device)
    except D3HRError:
        raise
    except Exception as error:  # of diffusers, transformers, tokenizers and sentencepiece
        raise ModelFormatError(
            f"the text encoders of {folder} cannot be loaded: {error}; download or save the model again"
        ) from error
    for part in classes:
        length = getattr(getattr(pipeline, part), "model_max_length", 0)
        if "CLIP" in classes[part] and length > MAX_TOKENS:  # prompts are filled up to it
            raise ModelFormatError(
                f"{folder / part}: model_max_length = {length:,}; accepted: at most {MAX_TOKENS}"
            )
    # Some ask the network, which is not loaded here, how wide the embeddings of a missing encoder would be.
    setattr(pipeline, kind.network[0], SimpleNamespace(config=SimpleNamespace(**network)))
    return pipeline


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep diffusers and transformers from speaking of parts that are left out on purpose."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for logging in (diffusers_logging, transformers_logging):
            stack.callback(logging.set_verbosity, logging.get_verbosity())
            logging.set_verbosity_error()
            if logging.is_progress_bar_enabled():
                stack.callback(logging.enable_progress_bar)
                logging.disable_progress_bar()
        yield
