"""The image cache: class groups of decoded images on disk, in a folder any ImageFolder reader opens.

    ROOT/SET/CLASS/00000.png ...     one folder per class, in label order
    ROOT/SET/CLASS/group.json        SHA-256 of every image of the group
    ROOT/.partial/                   groups being written
    ROOT/.locks/                     one lock file per group being made

A group appears whole by one rename, so a killed process leaves nothing that could be read. Images are
compared with their checksum when they are read; a damaged group counts as missing and is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock
from PIL import Image

from d3hr_datasets.errors import CacheError

MANIFEST = "group.json"


class ImageCache:
    """Class groups of one generated set.

    Args:
        root: Folder of all sets.
        name: Folder of this set, named by its contents.
        class_names: Class names in label order; folders are their number and a plain form of the name,
            so that sorting folders gives the labels.
        ipc: Images per class.
    """

    def __init__(self, root: Path, name: str, class_names: Sequence[str], ipc: int) -> None:
        self.root = root
        self.folder = root / name
        width = max(3, len(str(len(class_names) - 1)))
        self.class_folders = [
            f"{label:0{width}d}-{re.sub(r'[^A-Za-z0-9]+', '_', class_name).strip('_')}"
            for label, class_name in enumerate(class_names)
        ]
        self.ipc = ipc
        self._checksums: dict[int, list[str]] = {}

    def path(self, label: int, index: int) -> Path:
        """Return the path of an image, whether or not it exists."""
        return self.folder / self.class_folders[label] / f"{index:05d}.png"

    def read(self, label: int, index: int) -> Image.Image | None:
        """Return an image, or None if its group is missing or the file is not the one written."""
        checksums = self._manifest(label)
        if checksums is None:
            return None
        data = self._bytes(label, index)
        if hashlib.sha256(data).hexdigest() != checksums[index]:
            self._checksums.pop(label, None)
            return None
        image = Image.open(io.BytesIO(data))
        image.load()
        return image

    def is_complete(self, label: int) -> bool:
        """Say whether a group is there, undamaged and without anything else; reads every image."""
        self._checksums.pop(label, None)
        checksums = self._manifest(label)
        if checksums is None:
            return False
        names = {path.name for path in (self.folder / self.class_folders[label]).iterdir()}
        if names != {MANIFEST, *(self.path(label, index).name for index in range(self.ipc))}:
            return False
        return all(
            hashlib.sha256(self._bytes(label, index)).hexdigest() == checksum
            for index, checksum in enumerate(checksums)
        )

    def _bytes(self, label: int, index: int) -> bytes:
        """Return what a file holds; nothing if it is missing."""
        try:
            return self.path(label, index).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise CacheError(f"{self.path(label, index)} cannot be read: {error}") from error

    def ensure(self, label: int, make: Callable[[], Sequence[Image.Image]]) -> None:
        """Have the group of a class on disk: `make` it unless another process did meanwhile.

        Raises:
            CacheError: The folder cannot be written.
        """
        with self._lock(label):
            if not self.is_complete(label):
                self._write(label, make())

    def _manifest(self, label: int) -> list[str] | None:
        if label not in self._checksums:
            path = self.folder / self.class_folders[label] / MANIFEST
            try:
                checksums = json.loads(path.read_text(encoding="utf-8"))["sha256"]
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError):  # damaged: the group counts as missing
                return None
            except OSError as error:
                raise CacheError(f"{path} cannot be read: {error}") from error
            if not isinstance(checksums, list) or len(checksums) != self.ipc:
                return None
            self._checksums[label] = checksums
        return self._checksums[label]

    @contextlib.contextmanager
    def _lock(self, label: int) -> Iterator[None]:
        path = self.root / ".locks" / f"{self.folder.name}.{self.class_folders[label]}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire()
        except OSError as error:
            raise CacheError(
                f"the cache {self.root} cannot be written: {error}. Give another `root`, or make it writable"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _write(self, label: int, images: Sequence[Image.Image]) -> None:
        partial = self.root / ".partial" / f"{os.getpid()}-{uuid.uuid4().hex}"
        damaged = partial.with_name(f"{partial.name}-damaged")
        target = self.folder / self.class_folders[label]
        try:
            partial.mkdir(parents=True)
            checksums = []
            for index, image in enumerate(images):
                buffer = io.BytesIO()
                image.save(buffer, format="PNG")
                checksums.append(hashlib.sha256(buffer.getvalue()).hexdigest())
                _write_synced(partial / f"{index:05d}.png", buffer.getvalue())
            _write_synced(partial / MANIFEST, json.dumps({"sha256": checksums}).encode())
            self.folder.mkdir(parents=True, exist_ok=True)
            if target.exists():  # damaged, or it would not be written
                target.rename(damaged)
            partial.rename(target)
            _sync_folder(self.folder)
        except OSError as error:
            raise CacheError(
                f"the cache {self.root} cannot be written: {error}. Free some space or give another `root`; "
                "what was complete is kept, and generation goes on from there"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(damaged, ignore_errors=True)
        self._checksums[label] = checksums


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
