"""Looks at files of others before a library reads them, and writes files whole or not at all.

An artifact or a model may come from anybody. In: a path. Out: the path, JSON, or the header of tensors, or an
error before anything large is allocated. Nothing here reads a format that could run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from d3hr_datasets.errors import ArtifactFormatError, ArtifactIntegrityError

MAX_JSON_BYTES = 16 * 2**20
MAX_HEADER_BYTES = 4 * 2**20  # of a safetensors file; the largest model named in the papers has 60 kB


def is_safe_name(name: object) -> bool:
    """Say whether a name is that of a file below a folder, the same on every system."""
    if not isinstance(name, str) or not name or name.startswith("/") or set(name) & set('\\:\0*?"<>|'):
        return False
    parts = name.split("/")
    return all(part not in {"", ".", ".."} for part in parts) and PurePosixPath(name).as_posix() == name


def path_inside(folder: Path, name: str) -> Path:
    """Return the path of a file of `folder`, which must lie there, also after symbolic links are followed.

    Files of a snapshot in the Hub's cache are links to its `blobs/`, which is accepted too.

    Raises:
        ArtifactIntegrityError: It leads out of the folder.
    """
    path, root = folder / name, folder.resolve()
    places = [root]
    if root.parent.name == "snapshots":
        places.append(root.parent.parent / "blobs")
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise ArtifactIntegrityError(
            f"{path} cannot be followed: {error}; download the artifact again"
        ) from error
    if not is_safe_name(name) or not any(target.is_relative_to(place) for place in places):
        raise ArtifactIntegrityError(
            f"{path} leads to {target}, out of the artifact; artifacts hold their files themselves"
        )
    return path


def read_json(path: Path, *, infinity: bool = False) -> dict[str, Any]:
    """Return the object of a JSON file.

    Args:
        path: The file.
        infinity: Take `Infinity` and `-Infinity` for numbers, as diffusers writes them (DPM-Solver's
            `lambda_min_clipped`); NaN never is one.

    Raises:
        ArtifactFormatError: It is too large, no JSON (NaN and infinity are none), nested too deeply, no
            object, or names a key twice.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ArtifactFormatError(f"{path}: more than {MAX_JSON_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        constant = _infinity if infinity else _no_constant
        document = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactFormatError(f"{path} is no JSON: {error}; download it again") from error
    if not isinstance(document, dict):
        raise ArtifactFormatError(f"{path} is no JSON object but {document!r:.80}; download it again")
    return document


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: dtype, shape and place of each tensor by name.

    Raises:
        ArtifactFormatError: It is none: another format under this name, or a header of a size that is not
            accepted.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ArtifactFormatError(
                f"{path}: a header of {length} bytes in a file of {size}; accepted: a safetensors file with "
                f"one of at most {MAX_HEADER_BYTES}. Download the artifact again"
            )
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if not all(isinstance(entry["shape"], list) for entry in tensors.values()):
            raise ValueError("a tensor has no shape")
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise ArtifactFormatError(
            f"{path} is no safetensors file: {error}; download the artifact again"
        ) from error
    return tensors


def check_model_file(path: Path) -> None:
    """Look at a file of a diffusion model, which is JSON or safetensors.

    Raises:
        ArtifactFormatError: It is another, or not what its name says.
    """
    if path.suffix == ".json":
        read_json(path, infinity=True)
    elif path.suffix == ".safetensors":
        read_header(path)
    else:
        raise ArtifactFormatError(
            f"{path}: a model consists of .json and .safetensors files, nothing else of it is read; remove it"
        )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file through a temporary of its own, synced before it gets its name: there is no half one.

    Args:
        path: The file.
        write: Writes a file at the path it is given.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # no link can be there
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is there twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _infinity(name: str) -> float:
    return _no_constant(name) if name == "NaN" else float(name)
