"""Students of a table that fail or are killed, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize("how", ["error", "killed"])
def test_a_student_that_fails_ends_the_others(how: str, tmp_path: Path) -> None:
    """In processes of their own: the first fails at once, the second would go on for minutes."""
    script = tmp_path / "fail.py"
    script.write_text(FAILING.format(how=how))
    started = time.monotonic()
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    expected = "ValueError: no such student" if how == "error" else "StudentError: the process of a student"
    assert run.returncode == 1 and expected in run.stderr, run.stderr
    assert time.monotonic() - started < 200


FAILING = """
import os, time
from d3hr_datasets.experiments import train_table

class Settings:
    epochs = 1
    def __init__(self, seed):
        self.seed = seed

class Row:
    name = "a"
    def student(self, seed):
        return Settings(seed)

def fail(settings):
    for _ in range(5000):
        train_table._epochs.put(1.0)  # more than a pipe holds
    if settings.seed:
        time.sleep(600)
    time.sleep(5)
    if "{how}" == "killed":
        os.kill(os.getpid(), 9)
    raise ValueError("no such student")

train_table.check_inputs = lambda settings: None
train_table._train = fail
if __name__ == "__main__":
    train_table.train_all([Row()], 2, 2, progress=False)
"""
