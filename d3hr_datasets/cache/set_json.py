"""The file that says what a set is: format, images per class, number of groups, settings <-> `set.json`.

It has a SHA-256 of its own, by which a set of this library is told from a folder of somebody else.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from d3hr_datasets.cache.files import SETTINGS, read_bytes
from d3hr_datasets.errors import CacheError

FORMAT = 1


def settings_bytes(ipc: int, num_groups: int, settings: dict[str, Any]) -> bytes:
    """Return what `set.json` is, byte for byte."""
    return _seal({"format": FORMAT, "ipc": ipc, "num_groups": num_groups, "settings": settings})


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the fields of `set.json`, or None if it is missing or damaged.

    Raises:
        CacheError: It is of another format version, or cannot be read.
    """
    data = read_bytes(folder / SETTINGS)
    try:
        document = json.loads(data)
        version = document["format"]
        checksum = document.pop("sha256", None)
        sealed = data == _seal(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not sealed and (version == FORMAT or checksum is not None):
        return None
    if version != FORMAT:
        raise OtherFormatError(
            f"{folder / SETTINGS} has format {version!r:.80}; this version of d3hr-datasets reads {FORMAT}. "
            f"Use the version that wrote it, remove the set (`d3hr cache prune {folder.name} --root "
            f"{folder.parent}`), or give another `root`",
            sealed=sealed,
        )
    return dict(document) if _has_fields(document) else None


class OtherFormatError(CacheError):
    """A set is of another format.

    Attributes:
        sealed: Whether its `set.json` has the checksum that this library gives to every format.
    """

    def __init__(self, message: str, sealed: bool = False) -> None:
        super().__init__(message, sealed)  # both, so that it can be sent to another process
        self.sealed = sealed

    def __str__(self) -> str:
        return str(self.args[0])


def _has_fields(document: dict[str, Any]) -> bool:
    """Say whether a document of this format holds what `settings_bytes` writes."""
    numbers = [document.get("ipc"), document.get("num_groups")]
    return (
        document.keys() == {"format", "ipc", "num_groups", "settings"}
        and all(type(number) is int and number > 0 for number in numbers)
        and isinstance(document["settings"], dict)
    )


def _seal(document: dict[str, Any]) -> bytes:
    """Return a document with its own SHA-256."""
    checksum = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**document, "sha256": checksum}, sort_keys=True, indent=2) + "\n").encode()
