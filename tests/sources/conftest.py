"""Fixtures that several files of this folder take. They import the library, after `pytest_configure`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the library `datasets` keep what it reads in the test's folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Return a folder of the tiny images."""
    from tests.support.sources import NAMES
    from tests.support.tiny import TinyImages

    for index in range(12):
        image, label = TinyImages()[index]
        (tmp_path / "images" / NAMES[label]).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "images" / NAMES[label] / f"{index:02d}.png")
    return tmp_path / "images"
