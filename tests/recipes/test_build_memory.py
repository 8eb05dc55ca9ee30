"""The script that measures the memory of a build, on few images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipes.evaluate import build_memory


def test_images_are_built_from_in_a_process_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "memory.json"
    monkeypatch.setattr("sys.argv", ["build_memory", "--images", "20", "--output", str(output)])
    build_memory.main()
    ((name, values),) = json.loads(output.read_text())["results"].items()
    assert (name, values["images"]) == ("20 images", 20)
    assert 0 < values["before_mib"] <= values["peak_mib"] and values["seconds"] > 0
