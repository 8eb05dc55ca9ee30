from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def test_a_few_rounds_of_the_fault_campaign() -> None:
    # In a process of its own, where no thread runs that a forked one would miss.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.faults", "--rounds", "3"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every promise kept" in done.stdout and "     3  kill: rounds\n" in done.stdout


def test_a_few_rounds_of_the_hubs_fault_campaign() -> None:
    # In a process of its own: huggingface_hub reads where the Hub is when it is imported.
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.hub", "--rounds", "6"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every promise kept" in done.stdout and "upload: " in done.stdout
