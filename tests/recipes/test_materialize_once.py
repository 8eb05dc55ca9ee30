"""Every way of making a set that is measured makes it."""

from __future__ import annotations

import pytest

from recipes.evaluate import materialize_once


@pytest.mark.parametrize("way", materialize_once.WAYS)
def test_a_way_is_measured(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialize_once, "IPC", 1)
    found = materialize_once.measure(way)
    assert set(found) == {"images_per_second", "cpu_seconds", "page_faults"}
    assert found["images_per_second"] > 0
