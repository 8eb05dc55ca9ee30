"""`d3hr.json` of an artifact: the file <-> its description and the checksums of the other files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.moments_file import max_moments_bytes
from d3hr_datasets.artifact.order_file import order_bytes
from d3hr_datasets.artifact.privacy import OF_IMAGES
from d3hr_datasets.artifact.tensors import stored_bytes
from d3hr_datasets.errors import (
    ArtifactFormatError,
    ArtifactIntegrityError,
    ArtifactNotFoundError,
    ConfigError,
)
from d3hr_datasets.io.text import printable
from d3hr_datasets.io.untrusted_files import (
    MAX_CONFIG_BYTES,
    MAX_JSON_BYTES,
    MAX_TOKENIZER_BYTES,
    MAX_WEIGHTS_BYTES,
    file_sha256,
    is_file,
    is_of_tokenizer,
    is_safe_name,
    path_inside,
    read_json,
)
from d3hr_datasets.version import __version__

FORMAT = 2  # says of what `ArtifactInfo.needs_format_2` lists; what has none of it is written as 1
FORMATS = (1, FORMAT)
METADATA = "d3hr.json"
STATISTICS = "statistics.safetensors"
MOMENTS = "moments.safetensors"
EMBEDDINGS = "embeddings.safetensors"
ADAPTER = "adapter"
CURATION = "curation.safetensors"


def document_text(document: dict[str, Any]) -> str:
    """Return the text of a `d3hr.json`.

    Raises:
        ConfigError: It is longer than readers accept.
    """
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    size = len(text.encode())
    if size > MAX_JSON_BYTES:
        raise ConfigError(
            f"{METADATA} would have {size:,} bytes; accepted: at most {MAX_JSON_BYTES:,}. What takes most "
            "are names of classes, prompts, and images that were left out (skip_unreadable): mend or remove "
            "these images, or give shorter names"
        )
    return text


def read_metadata(folder: Path) -> tuple[ArtifactInfo, dict[str, str]]:
    """Return what an artifact describes, and the checksum of every other file by relative POSIX path.

    Raises:
        ArtifactNotFoundError: There is none.
        ArtifactFormatError: It is of another format, or a field has a value that is not accepted.
    """
    path = folder / METADATA
    if not is_file(path):
        raise ArtifactNotFoundError(
            f"{printable(path)[:300]} does not exist: {printable(folder)[:300]} is no artifact. Give a "
            f"folder that holds {METADATA}, as `hf download ORG/NAME --repo-type dataset` brings it"
        )
    document = read_json(path_inside(folder, METADATA))
    if "format" not in document:
        raise ArtifactFormatError(f"{path}: field 'format' is missing; accepted: {list(FORMATS)}")
    if document["format"] not in FORMATS or isinstance(document["format"], bool):
        raise ArtifactFormatError(
            f"{path}: format = {document['format']!r}; accepted: {list(FORMATS)}. If it is newer, "
            f"upgrade this package, which has version {__version__}"
        )
    info, sha256 = document.get("info"), document.get("sha256")
    if not isinstance(info, dict) or not isinstance(sha256, dict):
        raise ArtifactFormatError(f"{path}: fields 'info' and 'sha256' must be objects")
    for name, digest in sha256.items():
        if not is_safe_name(name) or not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ArtifactFormatError(f"{path}: sha256[{name!r}] = {digest!r} is no checksum of a file in it")
    if STATISTICS not in sha256:
        raise ArtifactFormatError(f"{path}: field 'sha256' does not list {STATISTICS}")
    try:
        described = ArtifactInfo.from_dict(info)
    except ConfigError as error:
        raise ArtifactFormatError(f"{path}: {error}") from error
    if described.needs_format_2 and document["format"] == 1:
        raise ArtifactFormatError(
            f"{path}: format = 1, but it says what format 2 has (prompts, an adapter, another grid, shrunk "
            "variances, another way to decode, budgets, an order of images, a tolerance, privacy or "
            "learned means); build or download it again"
        )
    if described.privacy is not None:
        _check_private(path, described, sha256)
    return described, sha256


def _check_private(path: Path, info: ArtifactInfo, sha256: Collection[str]) -> None:
    """Check that a private artifact holds and says nothing besides which comes from single images."""
    said = [name for name in (MOMENTS, *OF_IMAGES) if name in sha256 or name in info.source]
    if info.tolerance is not None:
        said.append("tolerance")
    if said:
        raise ArtifactFormatError(
            f"{path}: it promises privacy, and its {' and '.join(said)} come from the images, which no "
            "budget covers; whoever made it has broken the promise: build it again"
        )


def needed_files(info: ArtifactInfo, sha256: dict[str, str]) -> list[str]:
    """Return the names of the files that generating images reads: statistics, and the model if it is inside.

    The others are for people (cards, pictures, a preview), or for merging and forgetting: moments.
    """
    names = {STATISTICS}
    folders: tuple[str, ...] = ()
    if info.embeddings:
        names.add(EMBEDDINGS)
    if info.curation is not None:
        names.add(CURATION)
    if info.adapter:
        folders += (f"{ADAPTER}/",)
    if info.model.path is not None:
        folders += (f"{info.model.path}/",)
    return [
        name for name in sha256 if name in names or (name.startswith(folders) and not name.endswith(".md"))
    ]


def max_bytes(info: ArtifactInfo, name: str) -> int:
    """Return the size that a file of an artifact has at most."""
    if name == STATISTICS:
        return stored_bytes(info)
    if name == CURATION and info.curation is not None:
        return order_bytes(len(info.classes), info.curation)
    if name == MOMENTS:
        return max_moments_bytes(info)
    if name == METADATA:
        return MAX_JSON_BYTES
    if is_of_tokenizer(PurePosixPath(name)):
        return MAX_TOKENIZER_BYTES
    return MAX_CONFIG_BYTES if name.endswith(".json") else MAX_WEIGHTS_BYTES


def file_digests(folder: Path) -> dict[str, str]:
    """Return the checksums of the files of an artifact as they are now, those in hidden folders left out.

    Raises:
        ArtifactIntegrityError: One leads out of the folder, or is a link to a folder.
    """
    files = {path.relative_to(folder): path for path in sorted(list_files(folder))}
    return {
        relative.as_posix(): file_sha256(path_inside(folder, relative.as_posix()))
        for relative, path in files.items()
        if path.is_file() and path.name != METADATA and not relative.parts[0].startswith(".")
    }


def list_files(folder: Path) -> list[Path]:
    """Return all that is in a folder and those below it, and is no folder.

    Raises:
        ArtifactIntegrityError: A folder is a link: what is in it would not be seen here, and be read.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise ArtifactIntegrityError(
                    f"{Path(parent) / name} is a link to a folder; artifacts hold their folders themselves"
                )
        found += [Path(parent) / name for name in names]
    return found
