"""What materialising says meanwhile: a bar on a terminal, lines elsewhere, nothing where nobody asks."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

import pytest

from d3hr_datasets.dataset import generation_progress
from d3hr_datasets.dataset.generated_set import GeneratedSet
from d3hr_datasets.dataset.generation_progress import GenerationProgress
from tests.support.sets import tiny_set

FIGURES = r"\d+/9 images, +[\d.?]+ images/s, [\d:?]+ left"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_say_images_a_second_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([0.0, 4.0, 30.0, 30.0, 60.0, 60.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    with GenerationProgress(9, shown=True) as progress:
        progress.advance(2)  # after four seconds, too soon for a line
        progress.advance(4)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "generating: 6/9 images,  0.20 images/s, 00:15 left",
        "generating: 6/9 images,  0.10 images/s, 00:30 left",
    ]


def test_what_is_there_counts_as_neither_made_nor_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([0.0, 30.0, 30.0, 60.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    with GenerationProgress(18, shown=True) as progress:
        progress.leave_out(9)
        progress.advance(3)
    assert capsys.readouterr().err.splitlines() == [
        "generating: 3/9 images,  0.10 images/s, 01:00 left",
        "generating: 3/9 images,  0.05 images/s, 02:00 left",
    ]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with GenerationProgress(12, shown=True) as progress:
        progress.leave_out(3)
        progress.advance(9)
    shown = terminal.getvalue()
    assert re.search(rf"generating: 100%\|.*\| {FIGURES}", shown)


def test_materialising_says_how_far_it_is(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tiny_set(tiny_artifact, tmp_path)
    dataset.materialize(progress=False)
    dataset.materialize()  # nothing is missing
    assert capsys.readouterr().err == ""
    tiny_set(tiny_artifact, tmp_path / "other").materialize()
    assert re.fullmatch(rf"generating: {FIGURES}\n", capsys.readouterr().err)


def test_lines_come_while_a_group_is_made(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generation_progress, "SECONDS", 0.0)
    tiny_set(tiny_artifact, tmp_path, classes=[1]).materialize(batch_size=1)
    assert re.findall(r"\d+/\d+", capsys.readouterr().err) == ["1/3", "2/3", "3/3", "3/3"]


def test_groups_of_others_and_images_of_other_sizes_are_not_counted(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_set(tiny_artifact, tmp_path, ipc=2, nested=True, classes=[0, 1, 2]).materialize(progress=False)
    dataset = tiny_set(tiny_artifact, tmp_path, nested=True, classes=[0, 1, 2])
    assert dataset[3][1] == 1  # as if another process had made this class
    monkeypatch.setattr(GeneratedSet, "missing", lambda self, share: list(share))
    dataset.materialize()
    assert re.findall(r"\d+/\d+", capsys.readouterr().err) == ["2/2"]
