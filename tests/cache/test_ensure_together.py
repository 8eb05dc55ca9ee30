"""Several groups made by one call: which are, in which order their locks are taken, and that none stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.locks import Hold, group_lock
from d3hr_datasets.errors import CacheError

IPC = 2


def _cache(root: Path) -> ImageCache:
    return ImageCache(root, "set", ["a", "b", "c", "d"], IPC)


def _images(labels: list[int]) -> dict[int, list[Image.Image]]:
    return {label: [Image.new("L", (4, 4), label * 10 + index) for index in range(IPC)] for label in labels}


def _held(root: Path) -> list[int]:
    """Return the groups whose lock somebody holds."""
    found = []
    for label in range(4):
        with group_lock(root, "set", f"{label:03d}", timeout=0, keep=True) as hold:
            found += [label] if hold is Hold.BUSY else []
    return found


def test_what_is_missing_is_made_by_one_call_under_its_locks(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    cache.ensure(1, lambda: _images([1])[1])
    calls = []

    def make(labels: list[int]) -> dict[int, list[Image.Image]]:
        calls.append((labels, _held(tmp_path)))
        return _images(labels)

    cache.ensure_together(range(4), make)
    assert calls == [([0, 2, 3], [0, 2, 3])] and _held(tmp_path) == []
    for label in range(4):
        image = cache.read(label, 1)
        assert image is not None and image.getpixel((0, 0)) == label * 10 + 1
    cache.ensure_together(range(4), make)
    assert len(calls) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_no_lock_and_no_group(error: type[BaseException], tmp_path: Path) -> None:
    def fail(labels: list[int]) -> dict[int, list[Image.Image]]:
        raise error

    with pytest.raises(error):
        _cache(tmp_path).ensure_together([0, 1], fail)
    assert _held(tmp_path) == [] and not any((tmp_path / ".locks").iterdir())
    assert not any(_cache(tmp_path).is_complete(label) for label in range(4))


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
                _cache(tmp_path).ensure(1, lambda: _images([1])[1])
        return group_lock(root, name, number, timeout)

    def make(labels: list[int]) -> dict[int, list[Image.Image]]:
        assert labels == [0, 2] and _held(tmp_path) == [0, 2]
        return _images(labels)

    monkeypatch.setattr("d3hr_datasets.cache.image_cache.group_lock", locked)
    cache.ensure_together([0, 1, 2], make)
    assert taken == ["000", "001", "002"] and all(cache.is_complete(label) for label in range(3))


def test_labels_may_come_in_any_order_and_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3hr_datasets.cache.image_cache.LOCK_TIMEOUT", 0.1)
    cache, calls = _cache(tmp_path), []

    def make(labels: list[int]) -> dict[int, list[Image.Image]]:
        calls.append((labels, _held(tmp_path)))
        return _images(labels)

    cache.ensure_together([2, 1, 1, 2], make)
    assert calls == [([1, 2], [1, 2])] and cache.is_complete(1) and cache.is_complete(2)


@pytest.mark.parametrize("made", [0, 1, 3])
def test_a_group_of_another_size_is_not_written(made: int, tmp_path: Path) -> None:
    image = Image.new("L", (4, 4))
    with pytest.raises(CacheError, match=f"{made} images were made of class 1, a group has 2"):
        _cache(tmp_path).ensure_together([0, 1], lambda _: {**_images([0]), 1: [image] * made})
    assert not _cache(tmp_path).folder.exists() and _held(tmp_path) == []
