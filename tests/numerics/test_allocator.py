"""Memory that glibc keeps while images are made: set once, undone by the last, not over a user's choice."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest

from d3hr_datasets.experiments.student_run import run_student
from d3hr_datasets.numerics.allocator import kept_memory
from tests.support.tiny_students import student

CDLL = "d3hr_datasets.numerics.allocator.ctypes.CDLL"
TRIM, MMAP = -1, -3
KEPT, USUAL = {(MMAP, 2**30), (TRIM, 2**30)}, {(MMAP, 2**25), (TRIM, 2**26)}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that gets what an imitated glibc is told; it takes all values."""
    told: list[tuple[int, ...]] = []

    def mallopt(*name_and_value: int) -> int:
        told.append(name_and_value)
        return 1

    libc = SimpleNamespace(mallopt=mallopt, malloc_trim=lambda pad: told.append((pad,)))
    for name in list(os.environ):
        if name.startswith("MALLOC_") or name in ("LD_PRELOAD", "GLIBC_TUNABLES"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(CDLL, lambda name: libc)
    return told


def test_the_first_sets_it_and_the_last_undoes_it(calls: list[tuple[int, ...]]) -> None:
    with kept_memory():
        assert set(calls) == KEPT
        with kept_memory():
            pass
        assert set(calls) == KEPT
    assert set(calls[2:4]) == USUAL and calls[4:] == [(0,)]


def test_an_error_undoes_it_too(calls: list[tuple[int, ...]]) -> None:
    with pytest.raises(RuntimeError), kept_memory():
        raise RuntimeError
    assert set(calls[2:4]) == USUAL


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "1000"),
        ("LD_PRELOAD", "libjemalloc.so.2"),
        ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1"),
    ],
)
def test_what_the_user_chose_stays(
    name: str, value: str, calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with kept_memory():
        pass
    assert calls == []


def test_another_library_is_left_alone(calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))  # musl, macOS
    with kept_memory():
        pass
    assert calls == []


def test_an_older_glibc_gets_the_most_that_it_takes(
    calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mallopt(name: int, value: int) -> int:
        calls.append((name, value))
        return int(name != MMAP or value <= 2**25)

    libc = SimpleNamespace(mallopt=mallopt, malloc_trim=lambda pad: 0)
    monkeypatch.setattr(CDLL, lambda name: libc)
    with kept_memory():
        assert calls == [(MMAP, 2**30), (MMAP, 2**25), (TRIM, 2**30)]


def test_students_are_trained_with_kept_memory(
    calls: list[tuple[int, ...]], real: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    run_student(
        student(real, tmp_path), progress=False, on_epoch=lambda _: seen.append(len(set(calls) & KEPT))
    )
    assert seen and set(seen) == {2} and set(calls[-3:]) == {*USUAL, (0,)}
