"""Fixtures of the pages: one cache of generated images for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache of the images that pages generate, so that each set is made once."""
    return tmp_path_factory.mktemp("assets")
