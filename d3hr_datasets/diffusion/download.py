"""A diffusion model on the Hub -> its folder in the Hub's cache, looked at before its weights are brought.

In: "ORG/NAME" and a commit. Out: a folder in diffusers' layout, to be loaded as any other. Configurations
come first: they say how large the weights may be.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from d3hr_datasets.diffusion.layout import SCHEDULER, WEIGHTS, WEIGHTS_INDEX
from d3hr_datasets.diffusion.untrusted_models import BYTES_PER_PARAMETER, MAX_SHARDS, count_parameters
from d3hr_datasets.errors import ArtifactFormatError, ModelFormatError
from d3hr_datasets.io.hub_files import fetch_file
from d3hr_datasets.io.untrusted_files import MAX_CONFIG_BYTES, MAX_HEADER_BYTES, is_safe_name, read_json


def download_model(
    repo_id: str,
    revision: str | None,
    local_files_only: bool = False,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Bring a model to the Hub's cache and return its folder there.

    Weights are safetensors; those of a repository that has none, `.bin`.

    Args:
        repo_id: "ORG/NAME".
        revision: A commit, branch or tag; the newest commit of `main` by default.
        local_files_only: Do not ask the Hub.
        check: Takes the folder when the configurations are there, and refuses what is not wanted.

    Raises:
        ModelFormatError: A configuration says what models do not have; likewise whatever `check` raises.
        ArtifactFormatError: A file is larger than it may be, or not what its name says.
        Exception: Whatever the client raises where the Hub does not give a file.
    """
    from diffusers import AutoencoderKL, DiTTransformer2DModel
    from huggingface_hub.errors import EntryNotFoundError

    first = fetch_file(
        repo_id,
        SCHEDULER,
        MAX_CONFIG_BYTES,
        repo_type="model",
        revision=revision,
        local_files_only=local_files_only,
    )
    folder = first.parent.parent  # named by the commit, so that all files are of the same one
    fetch = partial(
        fetch_file, repo_id, repo_type="model", revision=folder.name, local_files_only=local_files_only
    )
    parts: dict[str, Any] = {"transformer": DiTTransformer2DModel, "vae": AutoencoderKL}
    for part in parts:
        fetch(f"{part}/config.json", MAX_CONFIG_BYTES)
    if check is not None:
        check(folder)
    for part, kind in parts.items():
        limit = count_parameters(kind, folder / part) * BYTES_PER_PARAMETER + MAX_HEADER_BYTES
        try:
            fetch(f"{part}/{WEIGHTS}.safetensors", limit)
        except EntryNotFoundError:
            try:
                index = fetch(f"{part}/{WEIGHTS_INDEX}", MAX_CONFIG_BYTES)
            except EntryNotFoundError:
                fetch(f"{part}/{WEIGHTS}.bin", limit)
            else:
                for name in _shards(index):
                    fetch(f"{part}/{name}", limit)
    return folder


def _shards(index: Path) -> list[str]:
    """Return the files that an index of weights names: some, and beside it."""
    shards = read_json(index, max_bytes=MAX_CONFIG_BYTES).get("weight_map")
    if not isinstance(shards, dict):
        raise ArtifactFormatError(f"{index} has no weight_map; download it again")
    names = {name for name in shards.values() if isinstance(name, str)}
    if len(names) > MAX_SHARDS or not all(
        is_safe_name(name) and "/" not in name and name.endswith(".safetensors") for name in names
    ):
        raise ModelFormatError(
            f"{index} names {sorted(names)[:3]}; accepted: at most {MAX_SHARDS} files beside it"
        )
    return sorted(names)
