"""The check of a group: its folder -> the files that are missing, changed or too many.

A group is sound if `group.json` is as it was written and every image has the SHA-256 that stands there.
`ImageCache.read` checks single images by the same checksums.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from d3hr_datasets.cache.files import (
    MANIFEST,
    MAX_IMAGE_BYTES,
    image_name,
    is_image_name,
    is_real_folder,
    read_bytes,
    read_error,
)

_CHECKSUM = re.compile(r"[0-9a-f]{64}")


def read_manifest(folder: Path) -> list[str] | None:
    """Return the SHA-256 of every image of a group, or None if its manifest is missing or damaged.

    Raises:
        CacheError: It is there and cannot be read.
    """
    if not is_real_folder(folder):
        return None
    data = read_bytes(folder / MANIFEST)
    try:
        checksums = json.loads(data)["sha256"]
        if not isinstance(checksums, list) or not checksums or data != manifest_bytes(checksums):
            return None
        if not all(map(_CHECKSUM.fullmatch, checksums)):
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return checksums


def manifest_bytes(checksums: list[str]) -> bytes:
    """Return what the manifest of these images is, byte for byte."""
    return json.dumps({"sha256": checksums}).encode()


def find_damage(folder: Path, ipc: int | None = None) -> Iterator[Path]:
    """Yield the files of a group that are missing or changed. Reads every image, and no other files.

    Args:
        folder: The group.
        ipc: Images it must have; as many as its manifest says by default.

    Raises:
        CacheError: A file cannot be read.
    """
    checksums = read_manifest(folder)
    if checksums is None or len(checksums) != (len(checksums) if ipc is None else ipc):
        yield folder / MANIFEST
        return
    for index, checksum in enumerate(checksums):
        data = read_bytes(folder / image_name(index), MAX_IMAGE_BYTES)
        if hashlib.sha256(data).hexdigest() != checksum:
            yield folder / image_name(index)


def additional_images(folder: Path, ipc: int) -> list[Path]:
    """Return the images in a group's folder that an image reader would take for the group's, and are not.

    Files that no image reader looks at (`.DS_Store`) are none of them.

    Raises:
        CacheError: The folder cannot be read.
    """
    try:
        images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMG_EXTENSIONS)
        return [path for path in images if not is_image_name(path.name, ipc)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise read_error(folder, error) from error
