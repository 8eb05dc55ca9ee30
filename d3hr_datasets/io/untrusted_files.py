"""Looks at files of others before a library reads them.

An artifact or a model may come from anybody. In: a path. Out: the path, JSON, or the header of tensors, or an
error before anything large is allocated. Nothing here reads a format that could run code.

`open_file`, `read_file` and `check_file` are the one door: no other module opens a file that others wrote,
or has a library open one, without one of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NoReturn

from d3hr_datasets.errors import ArtifactFormatError, ArtifactIntegrityError, ConfigError, ForeignFileError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.text import is_printable, printable

MAX_JSON_BYTES = 8 * 2**20  # the `d3hr.json` of a thousand classes has 0.1 MB, of 65,536 with prompts 6.7
MAX_CONFIG_BYTES = 3 * 2**19  # of JSON of a model; a label map of ImageNet-21k has 0.9 MB
MAX_TOKENIZER_BYTES = 64 * 2**20  # of a file of a tokenizer; that of Gemma has 34 MB
MAX_HEADER_BYTES = 4 * 2**20  # of a safetensors file; the largest model named in the papers has 60 kB
MAX_WEIGHTS_BYTES = 32 * 2**30  # of one file of a model; the largest DiT of the papers has 2.7
MAX_NAME_BYTES = 255  # of a file, on every usual file system


def is_file(path: Path) -> bool:
    """Say whether there is a regular file, also where a name is too long or a folder closed to us."""
    return os.path.isfile(path)  # noqa: PTH113 (`Path.is_file` raises then)


def is_folder(path: Path) -> bool:
    """Say whether there is a folder, as `is_file`."""
    return os.path.isdir(path)  # noqa: PTH112


def open_file(path: Path, max_bytes: int | None = None) -> io.BufferedReader:
    """Open a file that others wrote, to read it.

    Args:
        path: The file. What is none is not opened: a FIFO would wait for ever, a device never end.
        max_bytes: Its size at most.

    Raises:
        ForeignFileError: It is missing, closed to us, no regular file, or larger.
    """
    check_file(path, max_bytes)
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        _check_status(path, os.fstat(file.fileno()), max_bytes)  # another may have come in between
    except ForeignFileError:
        file.close()
        raise
    return file


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return what a file of at most `max_bytes` holds; errors as `open_file`."""
    with open_file(path, max_bytes) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # not what may be added meanwhile


def check_file(path: Path, max_bytes: int | None = None) -> os.stat_result:
    """Check a file before a library opens it by its name, and return its state; errors as `open_file`."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL, or a surrogate
        raise _unreadable(path, error) from error
    _check_status(path, status, max_bytes)
    return status


def file_version(path: Path) -> tuple[int, ...]:
    """Return what tells whether a file has been changed or replaced since; errors as `check_file`."""
    status = check_file(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _check_status(path: Path, status: os.stat_result, max_bytes: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ForeignFileError(
            f"{printable(path)} is no regular file ({stat.filemode(status.st_mode)}); put the file itself "
            "there"
        )
    if max_bytes is not None and status.st_size > max_bytes:
        raise ForeignFileError(
            f"{printable(path)} has {status.st_size:,} bytes; accepted: at most {max_bytes:,}"
        )


def _unreadable(path: Path, error: Exception) -> ForeignFileError:
    reason = getattr(error, "strerror", None) or error
    return ForeignFileError(
        f"{printable(path)} cannot be read: {reason}; make it readable, or bring it again"
    )


def is_safe_name(name: object) -> bool:
    """Say whether a name is that of a file below a folder, the same on every system."""
    if not isinstance(name, str) or not name or name.startswith("/") or set(name) & set('\\:\0*?"<>|'):
        return False
    if not is_printable(name) or any(len(part.encode()) > MAX_NAME_BYTES for part in name.split("/")):
        return False
    parts = name.split("/")
    return all(part not in {"", ".", ".."} for part in parts) and PurePosixPath(name).as_posix() == name


def path_inside(folder: Path, name: str) -> Path:
    """Return the path of a file of `folder`, which must lie there, also after symbolic links are followed.

    Files of a snapshot in the Hub's cache are links to its `blobs/`, which may be links to those that all
    repositories share; both are accepted.

    Raises:
        ArtifactIntegrityError: It leads out of the folder.
    """
    path = folder / name
    try:
        root, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a name that is too long
        raise ArtifactIntegrityError(
            f"{printable(path)} cannot be followed: {printable(error)}; download it again"
        ) from error
    places = [root]
    for above in (root, *root.parents):
        if above.parent.name == "snapshots":
            repository = above.parent.parent
            places += [repository / "blobs", repository.parent / "blobs"]
            break
    if not is_safe_name(name) or not any(target.is_relative_to(place) for place in places):
        raise ArtifactIntegrityError(
            f"{printable(path)} leads to {printable(target)}, out of {printable(root)}; put the file itself "
            "there"
        )
    return path


def read_json(path: Path, *, infinity: bool = False, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the object of a JSON file.

    Args:
        path: The file.
        infinity: Take `Infinity` and `-Infinity` for numbers, as diffusers writes them (DPM-Solver's
            `lambda_min_clipped`); NaN never is one.
        max_bytes: Its size at most.

    Raises:
        ArtifactFormatError: It is too large, no JSON (NaN and infinity are none), nested too deeply, no
            object, or names a key twice.
    """
    try:
        document = _parse(read_file(path, max_bytes).decode("utf-8"), infinity=infinity)
    except ForeignFileError as error:
        raise ArtifactFormatError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactFormatError(f"{path} is no JSON: {printable(error)}; download it again") from error
    if not isinstance(document, dict):
        raise ArtifactFormatError(f"{path} is no JSON object but {document!r:.80}; download it again")
    return document


def read_json_argument(path: str | Path, what: str) -> Any:
    """Return what a JSON file holds that the user gives; as strict as `read_json`, but of any type.

    Args:
        path: The file; `~` is the home folder.
        what: What it is, for the message: "class map".

    Raises:
        ConfigError: It cannot be read, or is no JSON.
    """
    path = expand_user(path)
    try:
        data = read_file(path, MAX_JSON_BYTES)
        return _parse(data.decode(json.detect_encoding(data)))  # editors write a mark, or UTF-16
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the {what} {path!s:.300} cannot be read as JSON: {error!s:.1000}") from error


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: dtype, shape and place of each tensor by name.

    Raises:
        ArtifactFormatError: It is none: another format under this name, or a header of a size that is not
            accepted.
    """
    try:
        file = open_file(path)
    except ForeignFileError as error:
        raise ArtifactFormatError(str(error)) from error
    with file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ArtifactFormatError(
                f"{path}: a header of {length} bytes in a file of {size}; accepted: a safetensors file with "
                f"one of at most {MAX_HEADER_BYTES}. Download the artifact again"
            )
        text = file.read(length)
    try:
        header = _parse(text.decode("utf-8"))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if not all(isinstance(entry["shape"], list) for entry in tensors.values()):
            raise ValueError("a tensor has no shape")
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise ArtifactFormatError(
            f"{path} is no safetensors file: {error}; download the artifact again"
        ) from error
    return tensors


def check_model_file(path: Path) -> None:
    """Look at a file of a diffusion model, which is JSON or safetensors, or of a tokenizer.

    Raises:
        ArtifactFormatError: It is another, or not what its name says.
    """
    if is_of_tokenizer(path):
        _check_tokenizer_file(path)
    elif path.suffix == ".json":
        read_json(path, infinity=True, max_bytes=MAX_CONFIG_BYTES)
    elif path.suffix == ".safetensors":
        read_header(path)
    else:
        raise ArtifactFormatError(
            f"{path}: a model consists of .json and .safetensors files, and a tokenizer also of .txt and "
            ".model files; nothing else of it is read: remove it"
        )


def is_of_tokenizer(path: PurePath) -> bool:
    """Say whether a file lies where diffusers keeps those of a tokenizer."""
    return path.parent.name.startswith("tokenizer") and path.suffix in {".json", ".model", ".txt"}


def _check_tokenizer_file(path: Path) -> None:
    if path.suffix == ".json":
        read_json(path, max_bytes=MAX_TOKENIZER_BYTES)
        return
    try:
        check_file(path, MAX_TOKENIZER_BYTES)
    except ForeignFileError as error:
        raise ArtifactFormatError(str(error)) from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; errors as `open_file`."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(text: str, *, infinity: bool = False) -> Any:
    """Return the value of JSON in which no key is there twice, and no number is NaN."""
    constant = _infinity if infinity else _no_constant
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=constant)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is there twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _infinity(name: str) -> float:
    return _no_constant(name) if name == "NaN" else float(name)
