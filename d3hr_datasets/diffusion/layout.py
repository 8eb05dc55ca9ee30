"""The layout of a model's folder, as diffusers writes it: names of files and of what is in them."""

from __future__ import annotations

from collections.abc import Iterable

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model"  # and ".safetensors" or ".bin"; of several files, a number between
WEIGHTS_INDEX = f"{WEIGHTS}.safetensors.index.json"
ENCODER_WEIGHTS = "model"  # the same of a text encoder, as transformers writes it
TOKENIZER_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
)
NETWORKS = ("transformer", "unet")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


def part_files(part: str) -> tuple[str, ...]:
    """Return the names of the files that a part of a model consists of, as patterns."""
    if part == "scheduler":
        return ("scheduler_config.json",)
    if part in TOKENIZERS:
        return TOKENIZER_FILES
    if part in ENCODERS:
        return ("config.json", f"{ENCODER_WEIGHTS}*.safetensors", f"{ENCODER_WEIGHTS}.safetensors.index.json")
    return ("config.json", f"{WEIGHTS}*.safetensors", WEIGHTS_INDEX)


def files_of(parts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return `part_files` of several parts."""
    return {part: part_files(part) for part in parts}


# What models consist of; a folder may hold anything else, which is nobody's business.
PARTS = files_of((*NETWORKS, "vae", "scheduler", *ENCODERS, *TOKENIZERS))
