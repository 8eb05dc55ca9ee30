"""The tutorials run as their pages print them, and make what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.docs.pages import DOCS, name_of
from tests.docs.runs import run_page


def run(page: str, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a tutorial; return the names that it has made."""
    path = DOCS / "tutorials" / page
    return run_page(name_of(path), path.read_text(encoding="utf-8"), folder, cache, monkeypatch)


def test_a_first_set(
    tmp_path: Path, image_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    names = run("first-set.md", folder, image_cache, monkeypatch)
    with Image.open(folder / "contact-sheet.png") as sheet:
        assert sheet.size == (10 * 30 + 2, 10 * 30 + 2)
    assert names["losses"][-1] < 0.3 < names["losses"][0]
    assert names["accuracy"] > 60
    assert "200 real test images are right" in capsys.readouterr().out


def test_your_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    names = run("own-images.md", folder, tmp_path / "unused", monkeypatch)
    assert len(names["dataset"]) == 8 and names["artifact"].info.num_modes == 2
    with Image.open(folder / "noise.png") as sheet:
        assert sheet.mode == "RGB"
    assert "('circle', 'square')" in capsys.readouterr().out
