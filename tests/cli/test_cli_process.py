"""The command as a process: what it imports, completes, and how signals and readers that leave end it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import REPOSITORY, fail
from tests.support.tampering import change_info

RUN = "import sys; from d3hr_datasets.cli.app import app; sys.argv[0] = 'd3hr'; app()"
LIGHT = """
import sys
from d3hr_datasets.cli.app import app
sys.argv[:] = ["d3hr", "--help"]
try:
    app()
finally:
    heavy = {"torch", "torchvision", "diffusers", "datasets", "huggingface_hub", "PIL", "numpy"}
    assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start the command as a process of its own, which SIGINT reaches also where this one ignores it.

    Python itself leaves a file open where a signal comes in the middle of an import.
    """
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    warnings = ["-W", "error", "-W", "ignore::ResourceWarning"]
    command = [sys.executable, *warnings, "-c", listen + RUN, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_help_needs_no_heavy_library() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIGHT],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("info", "verify", "materialize", "cache", "export"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("d3hr ma", {"materialize"}),
        ("d3hr export --format p", {"parquet"}),
        ("d3hr export --name f", {"fashion-mnist"}),
        ("d3hr materialize --sampling mo", {"modes", "moment_matched"}),
    ],
)
def test_the_shell_completes(words: str, expected: set[str]) -> None:
    environment = {
        **os.environ,
        "_D3HR_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    process = start(env=environment)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert set(out.split()) == expected


def test_interrupting_exits_with_130(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("d3hr_datasets.dataset.images_on_demand.load_model", interrupt)
    output = tmp_path / "out"
    options = ("--artifact", tiny_artifact, "--root", tmp_path / "root")
    fail(130, "export", "--format", "parquet", "--output", output, *options)
    assert not list(tmp_path.glob(".out*")) and not output.exists()


def test_a_signal_stops_the_process(tiny_artifact: Path, tmp_path: Path) -> None:
    options = ("--root", tmp_path / "root", "--device", "cpu")
    process = start("materialize", "--artifact", tiny_artifact, "--ipc", 20_000, *options)
    deadline = time.monotonic() + 120
    try:
        while not (tmp_path / "root" / ".locks").exists():  # generation has begun
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "") and "Traceback" not in err


def test_a_reader_that_leaves_early_is_no_error(tiny_artifact: Path, tmp_path: Path) -> None:
    change = Path(shutil.copytree(tiny_artifact, tmp_path / "artifact"))
    change_info(change, source={"text": ["x" * 1000] * 1000})  # more than a pipe holds
    process = start("info", change, "--json")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(1) == "{"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=120)
