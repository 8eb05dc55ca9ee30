"""What materialising says meanwhile: a bar on a terminal, lines elsewhere, nothing where nobody asks."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from d3hr_datasets.dataset import generation_progress
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
    monkeypatch.setattr(generation_progress.time, "monotonic", lambda: next(seconds))
    with GenerationProgress(9, shown=True) as progress:
        progress.advance(2)  # after four seconds, too soon for a line
        progress.advance(4)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "generating: 6/9 images,  0.20 images/s, 00:15 left",
        "generating: 6/9 images,  0.10 images/s, 00:30 left",
    ]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Terminal())
    with GenerationProgress(9, shown=True) as progress:
        progress.advance(9)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
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
