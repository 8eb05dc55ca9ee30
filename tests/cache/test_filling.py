"""Groups written while others are made: which are, in which order they are locked, and that no lock stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3hr_datasets.cache.filling import Made
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.locks import Hold, group_lock
from d3hr_datasets.errors import CacheError

IPC = 2


def _cache(root: Path) -> ImageCache:
    return ImageCache(root, "set", ["a", "b", "c", "d"], IPC)


def _images(label: int) -> list[Image.Image]:
    return [Image.new("L", (4, 4), label * 10 + index) for index in range(IPC)]


def _held(root: Path) -> list[int]:
    """Return the groups whose lock somebody holds."""
    found = []
    for label in range(4):
        with group_lock(root, "set", f"{label:03d}", timeout=0, keep=True) as hold:
            found += [label] if hold is Hold.BUSY else []
    return found


def _make(missing: Iterator[int]) -> Made:
    yield from ((label, _images(label)) for label in missing)


def test_what_is_missing_is_made_under_its_locks(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    cache.ensure(1, lambda: _images(1))
    calls = []

    def make(missing: Iterator[int]) -> Made:
        labels = list(missing)
        calls.append((labels, _held(tmp_path)))
        for label in reversed(labels):
            yield label, _images(label)

    assert sorted(cache.ensure_each(range(4), make)) == [0, 1, 2, 3]
    assert calls == [([0, 2, 3], [0, 2, 3])] and _held(tmp_path) == []
    for label in range(4):
        image = cache.read(label, 1)
        assert image is not None and image.getpixel((0, 0)) == label * 10 + 1
    assert sorted(cache.ensure_each(range(4), make)) == [0, 1, 2, 3]
    assert calls[1:] == [([], [])]


def test_a_group_is_written_while_the_next_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, begun, go_on = _cache(tmp_path), threading.Event(), threading.Event()
    write, writers = ImageCache._write, []

    def slow(self: ImageCache, label: int, *rest: object) -> None:
        writers.append(threading.current_thread())
        begun.set()
        assert go_on.wait(60)
        write(self, label, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageCache, "_write", slow)

    def make(missing: Iterator[int]) -> Made:
        for label in missing:
            if label == 1:
                assert begun.wait(60) and not cache.is_complete(0)  # group 0 is not there, and waited for
                assert _held(tmp_path) == [0, 1]
                go_on.set()
            yield label, _images(label)

    assert sorted(cache.ensure_each([0, 1], make)) == [0, 1]
    assert threading.current_thread() not in writers and len(writers) == 2


def test_no_more_waits_than_memory_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3hr_datasets.cache.filling.QUEUE", IPC)
    cache, go_on, written = _cache(tmp_path), threading.Event(), []

    def slow(self: ImageCache, label: int, *rest: object) -> None:
        assert go_on.wait(60)
        written.append(label)

    monkeypatch.setattr(ImageCache, "_write", slow)

    def make(missing: Iterator[int]) -> Made:
        for label in missing:
            if label == 1:
                threading.Timer(0.2, go_on.set).start()
            if label == 2:  # it was waited for that group 0 is written
                assert written[:1] == [0]
            yield label, _images(label)

    assert len(list(cache.ensure_each(range(3), make))) == 3


def test_what_goes_wrong_with_writing_is_raised_and_the_rest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, write = _cache(tmp_path), ImageCache._write

    def fail(self: ImageCache, label: int, *rest: object) -> None:
        if label == 1:
            raise CacheError("the disk is full")
        write(self, label, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageCache, "_write", fail)
    with pytest.raises(CacheError, match="the disk is full"):
        list(cache.ensure_each([0, 1], _make))
    assert cache.is_complete(0) and not cache.is_complete(1) and _held(tmp_path) == []


def test_what_else_went_wrong_with_writing_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: ImageCache, label: int, *rest: object) -> None:
        raise CacheError(f"the disk is full for {label}")

    monkeypatch.setattr(ImageCache, "_write", fail)

    def make(missing: Iterator[int]) -> Made:
        labels = list(missing)
        monkeypatch.setattr(Future, "done", lambda self: False)  # all fail before it is seen of one
        yield from ((label, _images(label)) for label in labels)

    with pytest.raises(CacheError, match="full for 0"):
        list(_cache(tmp_path).ensure_each([0, 1, 2], make))
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"class {label} was not written: the disk is full for {label}" for label in (1, 2)]
    assert _held(tmp_path) == []


def test_a_written_group_is_not_locked_while_others_are_sought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, submit, submitted = _cache(tmp_path), ThreadPoolExecutor.submit, []

    def kept(self: ThreadPoolExecutor, *args: Any) -> Future[Any]:
        submitted.append(submit(self, *args))
        return submitted[-1]

    monkeypatch.setattr(ThreadPoolExecutor, "submit", kept)

    def make(missing: Iterator[int]) -> Made:
        yield next(missing), _images(0)
        submitted[0].result(60)  # the group's; its images are the next ones
        assert next(missing) == 1 and _held(tmp_path) == [1]
        yield 1, _images(1)

    assert sorted(cache.ensure_each([0, 1], make)) == [0, 1]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_no_lock_and_only_whole_groups(error: type[BaseException], tmp_path: Path) -> None:
    def fail(missing: Iterator[int]) -> Made:
        yield next(missing), _images(0)
        next(missing)
        raise error

    with pytest.raises(error):
        list(_cache(tmp_path).ensure_each([0, 1], fail))
    assert _held(tmp_path) == [] and not any((tmp_path / ".locks").iterdir())
    assert [_cache(tmp_path).is_complete(label) for label in range(2)] == [True, False]


def test_an_interrupt_while_the_rest_is_written_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutdown = ThreadPoolExecutor.shutdown
    calls: list[Any] = []

    def interrupted(self: ThreadPoolExecutor, *args: Any, **options: Any) -> None:
        if threading.current_thread() is threading.main_thread() and not calls:
            calls.append(options)
            raise KeyboardInterrupt
        shutdown(self, *args, **options)

    def fail(missing: Iterator[int]) -> Made:
        yield next(missing), _images(0)
        next(missing)
        raise RuntimeError

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(_cache(tmp_path).ensure_each([0, 1], fail))
    assert calls and _held(tmp_path) == [] and not any((tmp_path / ".partial").iterdir())


def test_what_is_not_asked_for_any_more_is_given_up(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    cache.ensure(0, lambda: _images(0))
    made = cache.ensure_each(range(4), _make)
    assert next(made) == 0
    made.close()
    assert [cache.is_complete(label) for label in range(4)] == [True, True, False, False]
    assert _held(tmp_path) == []


def test_a_group_that_another_process_made_meanwhile_is_neither_made_nor_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, taken = _cache(tmp_path), []

    def locked(root: Path, name: str, number: str, timeout: float) -> object:
        taken.append(number)
        if number == "001":  # the other process is faster
            _cache(tmp_path).folder.mkdir(exist_ok=True)
            with monkeypatch.context() as patch:
                patch.setattr("d3hr_datasets.cache.image_cache.group_lock", group_lock)
                _cache(tmp_path).ensure(1, lambda: _images(1))
        return group_lock(root, name, number, timeout)

    def make(missing: Iterator[int]) -> Made:
        labels = list(missing)
        assert labels == [0, 2] and _held(tmp_path) == [0, 2]
        yield from ((label, _images(label)) for label in labels)

    monkeypatch.setattr("d3hr_datasets.cache.image_cache.group_lock", locked)
    assert sorted(cache.ensure_each([0, 1, 2], make)) == [0, 1, 2]
    assert taken == ["000", "001", "002"] and all(cache.is_complete(label) for label in range(3))


def test_labels_may_come_in_any_order_and_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3hr_datasets.cache.image_cache.LOCK_TIMEOUT", 0.1)
    cache = _cache(tmp_path)
    assert sorted(cache.ensure_each([2, 1, 1, 2], _make)) == [1, 2]
    assert cache.is_complete(1) and cache.is_complete(2)


@pytest.mark.parametrize("made", [0, 1, 3])
def test_a_group_of_another_size_is_not_written(made: int, tmp_path: Path) -> None:
    image = Image.new("L", (4, 4))
    with pytest.raises(CacheError, match=f"{made} images were made of class 1, a group has 2"):
        list(_cache(tmp_path).ensure_each([1], lambda missing: ((n, [image] * made) for n in missing)))
    assert not _cache(tmp_path).folder.exists() and _held(tmp_path) == []


def test_groups_that_are_not_made_or_were_not_asked_for_are_named(tmp_path: Path) -> None:
    def forgets(missing: Iterator[int]) -> Made:
        yield from ((label, _images(label)) for label in list(missing)[1:])

    with pytest.raises(CacheError, match="0 images were made of class 0"):
        list(_cache(tmp_path).ensure_each([0, 1], forgets))
    with pytest.raises(CacheError, match="class 3, which was not asked for"):
        list(_cache(tmp_path).ensure_each([0], lambda missing: ((3, _images(3)) for _ in missing)))
    assert _held(tmp_path) == []
