"""A model's folder: found, and what its `model_index.json` says of it.

In: a folder in diffusers' layout, or "ORG/NAME" and a commit on the Hub. Out: a folder with the parts of a
kind, that kind, the names of its classes, the frame of its images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3hr_datasets.diffusion.download import download_model
from d3hr_datasets.diffusion.kinds.kind import ModelKind
from d3hr_datasets.diffusion.kinds.table import kind_of
from d3hr_datasets.diffusion.layout import ENCODER_WEIGHTS, ENCODERS, INDEX, SCHEDULER, TOKENIZERS, WEIGHTS
from d3hr_datasets.errors import ArtifactFormatError, MissingExtraError, ModelFormatError, ModelNotFoundError
from d3hr_datasets.io.hub_files import fetch_file
from d3hr_datasets.io.text import printable
from d3hr_datasets.io.untrusted_files import MAX_CONFIG_BYTES, is_file, read_json

# In it: the black frame, in pixels, around the images that the model was trained on. diffusers passes over
# names with "_" where it loads a pipeline, and does not write them again where it saves one.
PADDING = "_padding"


def find_model(
    repo_id: str,
    revision: str | None,
    local_files_only: bool = False,
    check: Callable[[Path], None] | None = None,
    with_encoders: bool = False,
) -> Path:
    """Return the folder of a model on the Hub in the Hub's cache; arguments as `download_model`.

    Raises:
        ModelNotFoundError: The Hub does not give it, and it is not cached.
        ModelFormatError: It is not what diffusers wrote, of no kind that is known, or `check` refuses it.
        MissingExtraError: A library of what reads its prompts is not installed.
    """
    try:
        return download_model(repo_id, revision, local_files_only, check, with_encoders)
    except (ModelFormatError, MissingExtraError):
        raise
    except ArtifactFormatError as error:
        raise ModelFormatError(f"the diffusion model {repo_id} is not accepted: {error}") from error
    except Exception as error:  # the client lets those of its own libraries through
        raise _not_found(f"the diffusion model {repo_id} could not be loaded", repo_id, error) from error


def _not_found(what: str, repo_id: str, error: Exception) -> ModelNotFoundError:
    """Return the error that says what mends it where the Hub does not give something of a model."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    log_in = "log in with `hf auth login`, or set HF_TOKEN to a token"
    if isinstance(error, GatedRepoError):
        from huggingface_hub import constants

        return ModelNotFoundError(
            f"{what}, for it is gated: accept its terms at {constants.ENDPOINT}/{repo_id}, then {log_in} of "
            "the account that accepted them"
        )
    mend = "Check the repository's name, its revision and your connection, or HF_HUB_OFFLINE"
    if isinstance(error, RepositoryNotFoundError):
        mend = f"Check the repository's name; if it is private, {log_in} of an account that may read it"
    return ModelNotFoundError(f"{what}: {printable(error)}. {mend}")


def read_kind(model: str | Path, revision: str | None = None) -> ModelKind:
    """Return the kind of a model by its `model_index.json`; one without is a DiT.

    Args:
        model: A folder, or "ORG/NAME" on the Hub.
        revision: The commit of the latter.

    Raises:
        ModelNotFoundError: The Hub cannot be asked.
        ModelFormatError: It is of a kind that this library does not know, or the file is no JSON object.
    """
    return kind_of(_read_index(model, revision)[1], model)


def read_label_map(model: str | Path, revision: str | None) -> dict[str, Any]:
    """Return `id2label` of a model's `model_index.json`: class label -> name. Empty if it has none.

    Args:
        model: A folder, or "ORG/NAME" on the Hub.
        revision: The commit of the latter.

    Raises:
        ModelNotFoundError: The Hub cannot be asked.
        ModelFormatError: The file is no JSON object, or `id2label` is none.
    """
    path, index = _read_index(model, revision)
    label_map = index.get("id2label") or {}
    if not isinstance(label_map, dict):
        raise ModelFormatError(f"{path}: id2label must be an object, not {label_map!r:.80}")
    return label_map


def read_padding(model: str | Path, revision: str | None, sample_size: int) -> int | None:
    """Return the black frame around the images a model was trained on; None where it does not say.

    Args:
        model: A folder, or "ORG/NAME" on the Hub.
        revision: The commit of the latter.
        sample_size: Side of the model's images, frame included.

    Raises:
        ModelNotFoundError: The Hub cannot be asked.
        ModelFormatError: The file is no JSON object, or the frame leaves no image.
    """
    path, index = _read_index(model, revision)
    padding = index.get(PADDING)
    if padding is None:
        return None
    if isinstance(padding, bool) or not isinstance(padding, int) or not 0 <= 2 * padding < sample_size:
        raise ModelFormatError(
            f"{path}: {PADDING} is {padding!r:.40}; accepted: the pixels of a frame on each side, less than "
            f"half of the model's {sample_size}"
        )
    return padding


def _read_index(model: str | Path, revision: str | None) -> tuple[Path, dict[str, Any]]:
    """Return where a model's `model_index.json` is, and what it says; nothing if there is none."""
    path = Path(model) / INDEX
    if revision is not None:
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            path = fetch_file(str(model), INDEX, MAX_CONFIG_BYTES, repo_type="model", revision=revision)
        except ArtifactFormatError as error:
            raise ModelFormatError(str(error)) from error
        except Exception as error:  # as above
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                return path, {}  # the Hub says that there is none
            what = f"{INDEX} of {model} at {revision}, which may hold its label map, could not be loaded"
            raise _not_found(what, str(model), error) from error
    if not is_file(path):
        return path, {}
    try:
        return path, read_json(path, max_bytes=MAX_CONFIG_BYTES)
    except ArtifactFormatError as error:
        raise ModelFormatError(str(error)) from error


def check_folder(
    folder: Path, kind: ModelKind, revision: str | None, allow_bin: bool, with_encoders: bool
) -> None:
    """Check that a folder has the parts of its kind.

    Args:
        folder: The folder.
        kind: Its kind.
        revision: The user's, which no folder has.
        allow_bin: Whether weights may be .bin files.
        with_encoders: Whether prompts are to be read.

    Raises:
        ModelNotFoundError: A part is missing, or a revision was given.
    """
    if revision is not None:
        raise ModelNotFoundError(
            f"{folder} at revision {revision} is on the Hub, but a folder of that name hides it; leave "
            "out the revision to use the folder, or move it, or run in another folder"
        )
    network = kind.network[0]
    patterns = [
        pattern
        for part in (network, "vae")
        for pattern in (f"{part}/config.json", f"{part}/{WEIGHTS}*" + (".*" if allow_bin else ".safetensors"))
    ]
    patterns.append(SCHEDULER)
    for part in kind.encoders if with_encoders else ():
        if part not in kind.optional_encoders:
            patterns += [f"{part}/config.json", f"{part}/{ENCODER_WEIGHTS}*.safetensors"] * (part in ENCODERS)
            patterns += [f"{part}/*"] * (part in TOKENIZERS)
    for pattern in patterns:
        if not list(folder.glob(pattern)):
            raise ModelNotFoundError(
                f"{folder / pattern} is missing: a model folder of {kind.name} holds {network}/, vae/, "
                f"scheduler/{''.join(f', {part}/' for part in kind.encoders)} as "
                f"`{kind.pipelines[0]}.save_pretrained` writes them, with safetensors"
            )
