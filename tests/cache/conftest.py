"""Fixtures of the tests of the image cache: a lock that is held, and a cache that is complete.

Imported before `pytest_configure` of the suite has run, so heavy imports are in the fixtures.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


def _hold(root: Path, number: str, ready: threading.Event, done: threading.Event) -> None:
    """Hold a group's lock in another thread: to the file system, that is another process."""
    from d3hr_datasets.cache.locks import Hold, group_lock

    with group_lock(root, "set", number, timeout=0) as hold:
        assert hold is Hold.HELD
        ready.set()
        done.wait(60)


@pytest.fixture
def _held(tmp_path: Path) -> Iterator[None]:
    """Have the lock of group 000 of `tmp_path / "set"` taken."""
    ready, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=_hold, args=(tmp_path, "000", ready, done))
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        done.set()
        thread.join(60)


@pytest.fixture(scope="module")
def _generated(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.image_groups import dataset_in

    root = tmp_path_factory.mktemp("generated")
    dataset_in(tiny_artifact, root).materialize(progress=False)
    return root


@pytest.fixture
def generated(_generated: Path, tmp_path: Path) -> Path:
    """Return the root of a cache with all of the tiny artifact's images; the test may change it."""
    return Path(shutil.copytree(_generated, tmp_path / "root"))
