"""What is promised of the same seed: latents to the bit for any number of threads, pixels to a grey level."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]


def _run(what: str, *threads: int, **environment: str) -> Any:
    """Run `tests.latents` in a process of its own and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.latents", what, *map(str, threads)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(REPOSITORY)} | environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(result.stdout)


def _differences(found: dict[str, dict[str, str]]) -> list[str]:
    first, *others = found.values()
    return [name for name in first if any(other[name] != first[name] for other in others)]


def test_groups_are_equal_to_the_bit_for_any_number_of_threads() -> None:
    found = _run("embedded_groups", 1, 2, 4)
    assert len(found["1"]) == 4 * 61 * 10
    assert _differences(found) == []


def test_large_sums_are_equal_to_the_bit_for_any_number_of_threads() -> None:
    found = _run("large_sums", 1, 2, 3, 4)
    assert len(found["1"]) == 11
    assert _differences(found) == []


def test_workers_draw_the_groups_of_their_parent() -> None:
    found = _run("of_workers", 4)["4"]
    assert len(found["main"]) == 50
    assert found["fork"] == found["main"]
    assert found["spawn"] == found["main"]
