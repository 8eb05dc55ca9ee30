"""Rounds of builds to a stated precision: killed, damaged, in bounded memory, and on several processes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import STATISTICS
from d3hr_datasets.build import merged_moments
from d3hr_datasets.build.early_stop import random_orders
from d3hr_datasets.sources.user_datasets import as_images
from tests.build.test_early_stop import CountingPictures, _build
from tests.support.combining import Pictures, file_bytes
from tests.support.tampering import truncate
from tests.support.tiny import tiny_info

MODES: dict[str, Any] = {"info": {"num_modes": 3}, "tolerance": 0.4}


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_killed_build_goes_on_in_its_round(rounds: int, tmp_path: Path) -> None:
    expected = _build(tmp_path / "whole", Pictures(range(60)), **MODES)
    names = {path.name.split(".round-")[1][:2] for path in (tmp_path / "whole.chunks").glob("*.round-*")}
    assert len(names) >= 3
    source = Pictures(range(60))
    # Of the last class: chunks of eight before it in its round are finished.
    orders = random_orders(as_images(source), tiny_info(num_modes=3))
    fatal = max(orders[2][:7]) if rounds == 0 else max(orders[2][7:9])
    with pytest.raises(KeyboardInterrupt, match="killed"):
        _build(tmp_path / "a", _Killed(fatal), **MODES)
    again = CountingPictures(range(60))
    artifact = _build(tmp_path / "a", again, **MODES)
    first = {number for order in orders for number in order[:7]}
    assert fatal in again.read
    if rounds == 0:
        assert len(again.read & first) == 21 - 16  # two chunks of it were finished
    else:
        assert not again.read & first
    assert file_bytes(artifact, STATISTICS) == file_bytes(expected, STATISTICS)
    assert artifact.info == expected.info
    third = CountingPictures(range(60))
    _build(tmp_path / "a", third, **MODES)
    assert third.read == set()


def test_chunks_of_one_tolerance_are_not_those_of_another(tmp_path: Path) -> None:
    work = tmp_path / "work"
    for tolerance in (0.35, None, 0.4, 0.35):
        source = CountingPictures(range(60))
        artifact = _build(tmp_path / f"{tolerance}", source, work, tolerance=tolerance)
        assert artifact.info.counts == {0.35: (9, 9, 9), None: (20, 20, 20), 0.4: (7, 7, 7)}[tolerance]
    assert source.read == set()


def test_damaged_chunks_of_a_round_are_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = file_bytes(_build(tmp_path / "a", Pictures(range(60)), **MODES), STATISTICS)
    chunks = sorted((tmp_path / "a.chunks").glob("*.round-00-*.safetensors"))
    truncate(chunks[1], 0.5)
    again = CountingPictures(range(60))
    assert file_bytes(_build(tmp_path / "a", again, **MODES), STATISTICS) == expected
    assert len(again.read) == 8
    assert f"{chunks[1]} is damaged" in caplog.text


def test_moments_of_some_classes_at_a_time_decide_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _build(tmp_path / "a", Pictures(range(60)), **MODES)
    held: list[int] = []

    def noted(kind: Any, group: range, info: Any) -> Any:
        held.append(len(group))
        return merged_moments.empty_moments(kind, group, info)

    monkeypatch.setattr("d3hr_datasets.build.early_stop.empty_moments", noted)
    monkeypatch.setattr(merged_moments, "MERGE_BYTES", 1)
    found = _build(tmp_path / "b", Pictures(range(60)), **MODES)
    assert file_bytes(found, STATISTICS) == file_bytes(expected, STATISTICS)
    assert found.info == expected.info
    assert set(held) == {1}


class _Killed(CountingPictures):
    """Is killed at an image when it is read a second time: the first is to find modes."""

    def __init__(self, fatal: int) -> None:
        super().__init__(range(60))
        self.seen: list[int] = []
        self.at = fatal

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.seen.append(index)
        if self.seen.count(self.at) == 2 and index == self.at:
            raise KeyboardInterrupt("killed")
        return super().__getitem__(index)


class _Process:
    """One of several threads that stand for the processes of a build."""

    def __init__(self, index: int, number: int, barrier: threading.Barrier) -> None:
        self.process_index, self.num_processes = index, number
        self.is_main_process = index == 0
        self.barrier = barrier

    def wait_for_everyone(self) -> None:
        self.barrier.wait(timeout=300)

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        if not self.is_main_process:
            self.wait_for_everyone()
        yield
        if self.is_main_process:
            self.wait_for_everyone()


def test_any_number_of_processes_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = _build(tmp_path / "alone", Pictures(range(60)), **MODES)
    barrier, here = threading.Barrier(3), threading.local()
    monkeypatch.setattr("d3hr_datasets.build.build.join_processes", lambda: here.process)
    sources = [CountingPictures(range(60)) for _ in range(3)]

    def work(index: int) -> Artifact:
        here.process = _Process(index, 3, barrier)
        return _build(tmp_path / "together", sources[index], **MODES)

    with ThreadPoolExecutor(3) as pool:
        together = next(iter(pool.map(work, range(3))))
    assert file_bytes(together, STATISTICS) == file_bytes(alone, STATISTICS)
    assert together.info == alone.info
    assert all(source.read for source in sources)
