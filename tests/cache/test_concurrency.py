"""Several processes, locks, and file systems that have none."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from d3hr_datasets.cache import set_json as set_file
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.inspection import verify_cached_set
from d3hr_datasets.cache.locks import PARTIAL
from d3hr_datasets.cache.prune import prune_cache
from d3hr_datasets.errors import CacheError
from tests.support.image_groups import IPC, Maker, complete_set, dataset_in, images_of, left_over, never
from tests.support.workers import file_digests, generate_together


def test_two_at_once_make_a_group_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> Sequence[Image.Image]:
        calls.append(threading.get_ident())
        time.sleep(0.2)
        return images_of(0)

    caches = [ImageCache(tmp_path, "set", ["a"], IPC) for _ in range(2)]
    threads = [threading.Thread(target=cache.ensure, args=(0, make)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(calls) == 1
    assert all(cache.is_complete(0) for cache in caches)


def test_two_processes_at_once_give_the_bytes_of_one(
    tmp_path: Path, tiny_artifact: Path, _generated: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.SimpleQueue()
    root = str(tmp_path / "root")
    processes = [
        context.Process(target=generate_together, args=(str(tiny_artifact), root, IPC, barrier, results))
        for _ in range(2)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=600)
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    expected = file_digests(dataset_in(tiny_artifact, _generated).image_folder)
    assert len(expected) == 3 * (IPC + 1) + 1  # set.json
    assert results.get() == results.get() == expected
    assert left_over(tmp_path / "root") == []


def test_class_folder_removed_while_a_loader_reads_is_made_again(
    generated: Path, tiny_artifact: Path
) -> None:
    dataset = dataset_in(tiny_artifact, generated)
    expected = [dataset[index][0].tobytes() for index in range(len(dataset))]
    for workers in (0, 1):
        loader = DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=lambda items: items[0][0])
        found: list[bytes] = []
        for image in loader:
            if not found:
                shutil.rmtree(dataset.image_folder / dataset.cache.class_folders[2])
            found.append(image.tobytes())
        assert found == expected


def _remove_when_looked_at(monkeypatch: pytest.MonkeyPatch, folder: Path, times: int) -> list[Path]:
    """Have a set's folder vanish, as by `prune_cache`, when the writer of a group has just made it."""
    seen: list[Path] = []

    def read_settings(looked_at: Path) -> dict[str, Any] | None:
        if (folder.parent / PARTIAL).exists() and len(seen) < times:
            seen.append(folder)
            folder.rename(folder.parent / f"removed-{len(seen)}")
        return set_file.read_settings(looked_at)

    monkeypatch.setattr("d3hr_datasets.cache.image_cache.read_settings", read_settings)
    return seen


def test_a_set_removed_under_a_writer_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    seen = _remove_when_looked_at(monkeypatch, cache.folder, 2)
    cache.ensure(1, Maker(1))
    assert len(seen) == 2 and verify_cached_set(tmp_path, "set") == [] and not left_over(tmp_path)
    images = [cache.read(1, index) for index in range(IPC)]
    assert [image and image.tobytes() for image in images] == [image.tobytes() for image in images_of(1)]


def test_a_set_that_is_always_removed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    _remove_when_looked_at(monkeypatch, cache.folder, 99)
    with pytest.raises(CacheError, match="cannot be written"):
        cache.ensure(1, Maker(1))
    assert not left_over(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_file_system_without_locks_is_written_with_a_warning(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING, "d3hr_datasets"):
        cache = complete_set(tmp_path)
    assert "without a lock" in caplog.text
    assert cache.is_complete(0) and left_over(tmp_path) == []
    foreign = tmp_path / PARTIAL / f"set.000.{socket.gethostname()}.{'0' * 32}"
    foreign.mkdir()
    assert prune_cache(tmp_path).removed == () and foreign.exists()  # nothing proves its process dead
    assert prune_cache(tmp_path, ["set"]).removed == (cache.folder,)


@pytest.mark.usefixtures("_held")
def test_lock_that_is_never_released_does_not_block_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("d3hr_datasets.cache.image_cache.LOCK_TIMEOUT", 0.1)
    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    with caplog.at_level(logging.WARNING, "d3hr_datasets"):
        cache.ensure(0, Maker(0))
    assert "without a lock" in caplog.text and cache.is_complete(0)


def test_writers_without_locks_keep_what_the_first_one_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def make() -> Sequence[Image.Image]:
        complete_set(tmp_path)  # meanwhile, another process
        inodes.append(cache.path(0, 0).stat().st_ino)
        return images_of(1)  # other bytes, as those of another PNG encoder

    inodes: list[int] = []
    monkeypatch.setattr(fcntl, "flock", refuse)
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    cache.ensure(0, make)
    assert cache.is_complete(0) and cache.path(0, 0).stat().st_ino == inodes[0]
    assert left_over(tmp_path) == []


def test_complete_group_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    cache.ensure(0, Maker(0))
    system_open = os.open

    def open_to_read(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        return refuse() if flags & (os.O_WRONLY | os.O_RDWR) else system_open(path, flags, *args, **kwargs)

    for name in ("mkdir", "rename", "replace", "unlink"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(os, "open", open_to_read)
    reader = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    reader.ensure(0, never)
    assert reader.read(0, 0) is not None
    with pytest.raises(CacheError, match=r"materialize\(\)"):
        reader.ensure(1, never)
