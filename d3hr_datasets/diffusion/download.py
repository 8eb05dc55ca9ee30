"""A diffusion model on the Hub -> its folder in the Hub's cache, looked at before its weights are brought.

In: "ORG/NAME" and a commit. Out: a folder in diffusers' layout, to be loaded as any other. `model_index.json`
comes first: it says of which kind the model is. Then come configurations: they say how large weights may be.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from d3hr_datasets.diffusion.kinds.kind import ModelKind
from d3hr_datasets.diffusion.kinds.table import kind_of
from d3hr_datasets.diffusion.layout import (
    ENCODER_WEIGHTS,
    INDEX,
    SCHEDULER,
    TOKENIZER_FILES,
    TOKENIZERS,
    WEIGHTS,
)
from d3hr_datasets.diffusion.untrusted_encoders import (
    count_encoder_parameters,
    encoder_classes,
    import_encoders,
)
from d3hr_datasets.diffusion.untrusted_models import BYTES_PER_PARAMETER, MAX_SHARDS, count_parameters
from d3hr_datasets.errors import ArtifactFormatError, ModelFormatError
from d3hr_datasets.io.hub_files import fetch_file
from d3hr_datasets.io.untrusted_files import (
    MAX_CONFIG_BYTES,
    MAX_HEADER_BYTES,
    MAX_TOKENIZER_BYTES,
    is_safe_name,
    read_json,
)

Fetch = Callable[[str, int], Path]


def download_model(
    repo_id: str,
    revision: str | None,
    local_files_only: bool = False,
    check: Callable[[Path], None] | None = None,
    with_encoders: bool = False,
) -> Path:
    """Bring a model to the Hub's cache and return its folder there.

    Weights are safetensors; those of the network and the VAE of a repository that has none, `.bin`.

    Args:
        repo_id: "ORG/NAME".
        revision: A commit, branch or tag; the newest commit of `main` by default.
        local_files_only: Do not ask the Hub.
        check: Takes the folder when the configurations are there, and refuses what is not wanted.
        with_encoders: Also bring what reads prompts, where the model takes some.

    Raises:
        MissingExtraError: A library of what reads prompts is not installed.
        ModelFormatError: The model is of no kind that is known, or a configuration says what models do not
            have; likewise whatever `check` raises.
        ArtifactFormatError: A file is larger than it may be, or not what its name says.
        Exception: Whatever the client raises where the Hub does not give a file.
    """
    import diffusers

    first = partial(fetch_file, repo_id, repo_type="model", local_files_only=local_files_only)
    kind, encoders, folder = _look_at_index(first, repo_id, revision, with_encoders)
    # All files are of the commit that the folder is named by.
    fetch: Fetch = partial(first, revision=folder.name)
    network, network_class = kind.network
    for part in (network, "vae", *(part for part in encoders if part not in TOKENIZERS)):
        fetch(f"{part}/config.json", MAX_CONFIG_BYTES)
    fetch(SCHEDULER, MAX_CONFIG_BYTES)
    if check is not None:
        check(folder)
    limits = {
        part: count_parameters(getattr(diffusers, name), folder / part)
        for part, name in ((network, network_class), ("vae", kind.vae))
    }
    for part, name in encoders.items():
        if part not in TOKENIZERS:
            limits[part] = count_encoder_parameters(name, folder / part)
    for part in encoders:
        if part in TOKENIZERS:
            _fetch_tokenizer(fetch, part)
    for part, parameters in limits.items():
        limit = parameters * BYTES_PER_PARAMETER + MAX_HEADER_BYTES
        if part in encoders:
            _fetch_weights(fetch, part, ENCODER_WEIGHTS, limit, allow_bin=False)
        else:
            _fetch_weights(fetch, part, WEIGHTS, limit, allow_bin=True)
    return folder


def _look_at_index(
    fetch: Callable[..., Path], repo_id: str, revision: str | None, with_encoders: bool
) -> tuple[ModelKind, dict[str, str], Path]:
    """Return the kind of a model, the classes of what reads prompts, and its folder in the Hub's cache."""
    from huggingface_hub.errors import EntryNotFoundError

    index: dict[str, Any] = {}
    try:
        path = fetch(INDEX, MAX_CONFIG_BYTES, revision=revision)
    except EntryNotFoundError:  # a DiT may have none
        folder = fetch(SCHEDULER, MAX_CONFIG_BYTES, revision=revision).parent.parent
    else:
        folder = path.parent
        index = read_json(path, max_bytes=MAX_CONFIG_BYTES)
    kind = kind_of(index, repo_id)
    encoders: dict[str, str] = {}
    if with_encoders and kind.takes_prompts:
        encoders = encoder_classes(kind, index, repo_id)
        import_encoders(kind)
    return kind, encoders, folder


def _fetch_weights(fetch: Fetch, part: str, stem: str, limit: int, *, allow_bin: bool) -> None:
    """Bring the weights of a part: in one file, in several that an index names, or as `.bin`."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        fetch(f"{part}/{stem}.safetensors", limit)
        return
    except EntryNotFoundError as error:
        missing = error
    try:
        index = fetch(f"{part}/{stem}.safetensors.index.json", MAX_CONFIG_BYTES)
    except EntryNotFoundError:
        if not allow_bin:
            raise missing from None
        fetch(f"{part}/{stem}.bin", limit)
        return
    for name in _shards(index):
        fetch(f"{part}/{name}", limit)


def _fetch_tokenizer(fetch: Fetch, part: str) -> None:
    """Bring the files of a tokenizer: which there are, differs."""
    from huggingface_hub.errors import EntryNotFoundError

    missing = None
    found = 0
    for name in TOKENIZER_FILES:
        try:
            fetch(f"{part}/{name}", MAX_TOKENIZER_BYTES)
            found += 1
        except EntryNotFoundError as error:
            missing = error
    if missing is not None and not found:
        raise missing


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
