"""Pruning removes what is damaged, named or left over, and nothing that is written."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.inspection import verify_cached_set
from d3hr_datasets.cache.leftovers import LEFTOVER_AGE
from d3hr_datasets.cache.locks import LOCKS, PARTIAL
from d3hr_datasets.cache.prune import prune_cache
from d3hr_datasets.errors import CacheError
from tests.support.image_groups import IPC, Maker, complete_set, left_over
from tests.support.tampering import flip_byte


def test_pruning_removes_damaged_groups_and_named_sets(tmp_path: Path) -> None:
    cache = complete_set(tmp_path)
    other = ImageCache(tmp_path, "other", ["a"], IPC)
    other.ensure(0, Maker(0))
    assert prune_cache(tmp_path).removed == ()
    flip_byte(cache.path(1, 0))
    size = sum(path.stat().st_size for path in cache.path(1, 0).parent.iterdir())
    report = prune_cache(tmp_path, damaged=True)
    assert report.removed == (cache.path(1, 0).parent,) and report.num_bytes == size
    assert cache.is_complete(0) and other.is_complete(0)
    assert cache.read(1, 1) is None and verify_cached_set(tmp_path, "set") == []
    assert prune_cache(tmp_path, ["set"]).removed == (tmp_path / "set",)
    assert not cache.folder.exists() and other.is_complete(0)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("name", ["none", "..", "set/000-a", "", ".locks"])
def test_pruning_takes_names_of_sets_only(name: str, tmp_path: Path) -> None:
    cache = complete_set(tmp_path / "root")
    with pytest.raises(CacheError, match=r"\['set'\]"):
        prune_cache(tmp_path / "root", ["set", name])
    assert cache.is_complete(0)


@pytest.mark.usefixtures("_held")
def test_pruning_and_verifying_leave_alone_what_another_process_writes(tmp_path: Path) -> None:
    partial = tmp_path / PARTIAL / f"set.000.{socket.gethostname()}.{'0' * 32}"
    partial.mkdir(parents=True)
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    cache.ensure(1, Maker(1))
    cache.path(0, 0).parent.mkdir()
    cache.path(0, 0).write_bytes(b"half")
    assert verify_cached_set(tmp_path, "set") == []
    assert prune_cache(tmp_path, damaged=True).removed == ()
    with pytest.raises(CacheError, match="another process"):
        prune_cache(tmp_path, ["set"])
    assert partial.exists() and cache.is_complete(1)


def test_leftovers_are_pruned_when_their_process_is_dead(tmp_path: Path) -> None:
    complete_set(tmp_path)
    partials = tmp_path / PARTIAL
    here, elsewhere, old, unknown = (
        partials / f"set.000.{socket.gethostname()}.{'0' * 32}",
        partials / f"set.000.another-host.{'1' * 32}",
        partials / f"set.001.another-host.{'2' * 32}",
        partials / "4711-abc",
    )
    for path in (here, elsewhere, old, unknown):
        path.mkdir()
        (path / "00000.png").write_bytes(b"12345")
    long_ago = time.time() - LEFTOVER_AGE - 60
    for path in (old, unknown):
        os.utime(path, (long_ago, long_ago))
    lock = tmp_path / LOCKS / "set.000.lock"  # of `here`
    lock.touch()
    report = prune_cache(tmp_path)
    assert set(report.removed) == {here, old, lock} and report.num_bytes == 10
    assert left_over(tmp_path) == [unknown, elsewhere]


def test_next_writer_of_a_group_removes_its_leftovers(tmp_path: Path) -> None:
    leftover = tmp_path / PARTIAL / f"set.000.{socket.gethostname()}.{'0' * 32}"
    other = tmp_path / PARTIAL / f"set.001.{socket.gethostname()}.{'0' * 32}"
    for path in (leftover, other):
        path.mkdir(parents=True)
    ImageCache(tmp_path, "set", ["a", "b"], IPC).ensure(0, Maker(0))
    assert left_over(tmp_path) == [other]
