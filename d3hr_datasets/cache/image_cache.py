"""The image cache: class groups of decoded images on disk, in a folder any ImageFolder reader opens.

In: images, class by class. Out: the same images, as often as wanted, or none if they are not there unchanged.

A group is written to a temporary folder, synced, and appears whole by one rename, so that a killed process
leaves nothing that could be read. Images are compared with their checksum when they are first read, and when
their files have changed since; a damaged group counts as missing and is made again. Reading needs neither
locks nor the right to write. `files` says how the files lie, and `locks` what they do where the file system
has none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from d3hr_datasets.cache.damage import additional_images, find_damage, manifest_bytes, read_manifest
from d3hr_datasets.cache.files import (
    MANIFEST,
    MAX_IMAGE_BYTES,
    SETTINGS,
    check_real_folder,
    image_name,
    is_real_folder,
    open_file,
    read_bytes,
    read_error,
    replace_own,
    write_error,
)
from d3hr_datasets.cache.filling import WRITERS, Made, fill
from d3hr_datasets.cache.leftovers import remove_dead_partials
from d3hr_datasets.cache.locks import LOCK_TIMEOUT, LOCKS, PARTIAL, Hold, group_lock, new_partial
from d3hr_datasets.cache.set_json import read_settings, settings_bytes
from d3hr_datasets.classes.folders import class_folders, folder_number
from d3hr_datasets.errors import CacheError
from d3hr_datasets.io.atomic import sync, write_synced

# A file this old that changes has another time of change; clocks of file systems are coarse.
CLOCK_SECONDS = 2.0

ATTEMPTS = 3  # to write a group while another process removes the folder it goes to

logger = logging.getLogger(__name__)


class ImageCache:
    """Class groups of one generated set.

    Args:
        root: Folder of all sets.
        name: Folder of this set, named by its contents.
        class_names: Class names in label order; `class_folders` makes folders of them whose order is that of
            the labels.
        ipc: Images per class.
        settings: What the set was generated with, as JSON types; kept beside the images for
            `list_cached_sets`.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        class_names: Sequence[str],
        ipc: int,
        *,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.root = root
        self.folder = root / name
        self.class_folders = class_folders(class_names)
        self._groups = [str(self.folder / class_folder) for class_folder in self.class_folders]
        self.ipc = ipc
        self.settings = settings or {}
        self._checksums: dict[int, list[str]] = {}
        self._verified: dict[tuple[int, int], tuple[int, int, int]] = {}

    def path(self, label: int, index: int) -> Path:
        """Return the path of an image, whether or not it exists."""
        return self._group(label) / image_name(index)

    def read(self, label: int, index: int) -> Image.Image | None:
        """Return an image, or None if its group is missing or the file is not the one written.

        The checksum is computed on the first read in this process, and again whenever the file's inode, size
        or time of change is another. Links are not followed, and what is no regular file counts as missing.

        Raises:
            CacheError: The file is there and cannot be read, or the set is of another format.
        """
        checksums = self._manifest(label)
        if checksums is None:
            return None
        path = f"{self._groups[label]}/{image_name(index)}"
        try:
            file = open_file(path)
            if file is None:
                self._checksums.pop(label, None)
                return None
            with file:
                stat = os.fstat(file.fileno())
                data = file.read() if stat.st_size <= MAX_IMAGE_BYTES else b""
        except OSError as error:
            raise read_error(self.path(label, index), error) from error
        state = (stat.st_ino, stat.st_size, stat.st_ctime_ns)
        if self._verified.get((label, index)) != state:
            if hashlib.sha256(data).hexdigest() != checksums[index]:
                self._checksums.pop(label, None)
                return None
            if time.time() - stat.st_ctime > CLOCK_SECONDS:
                self._verified[label, index] = state
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        image.load()
        return image

    def is_complete(self, label: int) -> bool:
        """Say whether a group is there and undamaged; reads every image. Other files do not matter.

        Raises:
            CacheError: A file is there and cannot be read, or the set is of another format.
        """
        self._checksums.pop(label, None)
        if not is_real_folder(self.folder):
            return False
        read_settings(self.folder)  # of another format: an error
        return not any(find_damage(self._group(label), self.ipc))

    def check(self, labels: Iterable[int]) -> None:
        """Check that image readers find the set's images alone in its folders, and mend its `set.json`.

        Raises:
            CacheError: There are other images; they are somebody's, and stay.
        """
        if not is_real_folder(self.folder):
            return
        found = [path for label in labels for path in additional_images(self._group(label), self.ipc)]
        if found:
            raise CacheError(
                f"{len(found)} images in the cache are not of this set, and `ImageFolder` would read them as "
                f"if they were: {list(map(str, found[:5]))}. They may be yours and are not removed; move "
                "them elsewhere"
            )
        if read_settings(self.folder) is None and any(map(is_real_folder, map(Path, self._groups))):
            check_real_folder(self.root / PARTIAL)
            try:
                self._write_settings(Hold.UNSUPPORTED)
            except OSError as error:  # the images can be read without
                logger.warning("%s is damaged and cannot be mended: %s", self.folder / SETTINGS, error)

    def ensure(self, label: int, make: Callable[[], Sequence[Image.Image]]) -> None:
        """Have the group of a class on disk: `make` it unless it is there or another process makes it.

        Raises:
            CacheError: The group is not complete and the folder cannot be written, or the set is of another
                format, or a folder of the cache is a link.
        """
        for _ in self.ensure_each([label], lambda missing: ((label, make()) for label in missing)):
            pass

    def ensure_each(
        self, labels: Iterable[int], make: Callable[[Iterator[int]], Made]
    ) -> Generator[int, None, None]:
        """Have the groups of several classes on disk, each written while others are made.

        Args:
            labels: The classes, in any order.
            make: Takes the labels that are missing, each of which is locked when it is asked for, and yields
                (label, images) of them, in any order.

        Yields:
            Each label when its group is there. Nothing is done before it is asked for.

        Raises:
            CacheError: As of `ensure`.
        """
        return fill(labels, self._claim, make, self._write, self.ipc)

    @contextlib.contextmanager
    def _claim(self, label: int) -> Iterator[Hold | None]:
        """Yield what became of taking the lock of a group; None, without a lock, if the group is there."""
        if not self.is_complete(label):
            for folder in (self.root / LOCKS, self.root / PARTIAL, self.folder, self._group(label)):
                check_real_folder(folder)
            number = folder_number(self.class_folders[label])
            with group_lock(self.root, self.folder.name, number, LOCK_TIMEOUT) as hold:
                if not self.is_complete(label):
                    if hold is not Hold.HELD:
                        logger.warning("%s is made without a lock: %s", self._group(label), hold.value)
                    yield hold
                    return
        yield None

    def _group(self, label: int) -> Path:
        return self.folder / self.class_folders[label]

    def _manifest(self, label: int) -> list[str] | None:
        if label not in self._checksums:
            if not is_real_folder(self.folder):
                return None
            read_settings(self.folder)  # of another format: an error
            checksums = read_manifest(self._group(label))
            if checksums is None or len(checksums) != self.ipc:
                return None
            self._checksums[label] = checksums
        return self._checksums[label]

    def _write(self, label: int, images: Sequence[Image.Image], hold: Hold) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._try_to_write(label, images, hold)
                return
            except FileNotFoundError as error:  # another process removed a folder of the cache meanwhile
                if attempt == ATTEMPTS:
                    raise write_error(self.root, error) from error
            except OSError as error:
                raise write_error(self.root, error) from error

    def _try_to_write(self, label: int, images: Sequence[Image.Image], hold: Hold) -> None:
        number = folder_number(self.class_folders[label])
        if hold is Hold.HELD:
            remove_dead_partials(self.root, self.folder.name, number)
        partial = new_partial(self.root, self.folder.name, number, hold)
        try:
            partial.mkdir(parents=True)
            paths = [partial / image_name(index) for index in range(len(images))]
            with ThreadPoolExecutor(WRITERS) as executor:
                checksums = list(executor.map(_write_image, paths, images))
            write_synced(partial / MANIFEST, manifest_bytes(checksums))
            sync(partial)
            self.folder.mkdir(parents=True, exist_ok=True)
            if read_settings(self.folder) is None:
                self._write_settings(hold)
            self._publish(partial, label)
            if read_settings(self.folder) is None:  # removed meanwhile, when the group was not there yet
                self._write_settings(hold)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _write_settings(self, hold: Hold) -> None:
        partial = new_partial(self.root, self.folder.name, folder_number(self.class_folders[0]), hold)
        try:
            partial.mkdir(parents=True)
            data = settings_bytes(self.ipc, len(self.class_folders), self.settings)
            write_synced(partial / SETTINGS, data)
            replace_own(partial / SETTINGS, self.folder / SETTINGS)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _publish(self, partial: Path, label: int) -> None:
        """Give a written group its place: at once, or file by file if there is something already."""
        target = self._group(label)
        try:
            partial.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not self.is_complete(label):  # else a process without a lock was faster
                self._mend(partial, target)
            sync(target)
        sync(self.folder)

    def _mend(self, partial: Path, target: Path) -> None:
        """Replace what is damaged in a group; files that are not the cache's stay."""
        for path in additional_images(target, self.ipc):
            logger.warning("%s is no image of this set; move it elsewhere", path)
        for name in [*map(image_name, range(self.ipc)), MANIFEST]:  # the manifest last
            limit = MAX_IMAGE_BYTES
            if read_bytes(partial / name, limit) != read_bytes(target / name, limit):
                logger.warning("%s was missing or damaged and is written again", target / name)
                replace_own(partial / name, target / name)


def _write_image(path: Path, image: Image.Image) -> str:
    """Write an image and return its SHA-256."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_synced(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()
