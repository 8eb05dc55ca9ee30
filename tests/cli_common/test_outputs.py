"""What people type and what their terminals can show: `~user` of nobody, and outputs that are not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.build.model_facts import model_classes, model_reference
from d3hr_datasets.cli.app import app
from d3hr_datasets.dataset.export import export_image_folder
from d3hr_datasets.errors import ArtifactNotFoundError, ConfigError, ExportError
from d3hr_datasets.io.hub import download
from d3hr_datasets.sources.opening import SourceOptions, open_source
from tests.support.tampering import change_info

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = "~nosuchuser/x"
USES: dict[str, Callable[[Path], object]] = {
    "root": lambda artifact: D3HRDataset(artifact, NOBODY),
    "artifact": lambda _: D3HRDataset(NOBODY),
    "artifact as a path": lambda _: Artifact.from_pretrained(Path(NOBODY)),
    "images": lambda _: open_source(NOBODY, SourceOptions()),
    "a data set": lambda _: open_source(f"datasets:{NOBODY}", SourceOptions()),
    "model": lambda _: model_reference(NOBODY),
    "classes of a model": lambda _: model_classes(NOBODY, None),
    "an artifact in a folder": lambda _: Artifact.load(NOBODY),
    "a copy": lambda artifact: Artifact.load(artifact).save_pretrained(NOBODY),
    "an export": lambda artifact: export_image_folder(D3HRDataset(artifact, ipc=1), NOBODY),
    "downloads": lambda _: download("org/tiny", "0" * 40, {}, {}, cache_dir=NOBODY),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_home_folder_of_nobody_is_an_error(use: Callable[[Path], object], tiny_artifact: Path) -> None:
    with pytest.raises(ConfigError, match=r"'~nosuchuser/x' begins with '~'"):
        use(tiny_artifact)


def test_paths_that_cannot_be_are_errors_that_show_no_control_characters(tiny_artifact: Path) -> None:
    with pytest.raises(ConfigError, match="NUL"):
        D3HRDataset(tiny_artifact, "a\0b")
    with pytest.raises(ExportError, match="cannot be written"):
        Artifact.load(tiny_artifact).save_pretrained("a" * 5000)
    for name in ("a\x1b[31mb", "a\ud800b"):
        with pytest.raises(ArtifactNotFoundError) as raised:
            Artifact.from_pretrained(name)
        assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", NOBODY],
        ["cache", "list", "--root", NOBODY],
        ["cache", "prune", "--root", NOBODY],
        ["materialize", "--root", NOBODY],
        ["build", NOBODY, "--model", NOBODY, "--output", "out"],
    ],
)
def test_a_home_folder_of_nobody_is_one_line(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and result.stderr.startswith("d3hr: '~nosuchuser/x'")
    assert result.stderr.count("\n") == 1


NAMES = ("größe", "ミツバチ", "猫😀")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_a_letter_gets_its_number(encoding: str, artifact_copy: Path) -> None:
    change_info(artifact_copy, classes=NAMES)
    runner, folder = CliRunner(charset=encoding), str(artifact_copy)
    result = runner.invoke(app, ["info", folder])
    assert result.exit_code == 0
    shown = result.stdout_bytes.decode(encoding)
    assert all(name.encode(encoding, "backslashreplace").decode(encoding) in shown for name in NAMES)
    result = runner.invoke(app, ["info", folder, "--json"])
    assert json.loads(result.stdout_bytes.decode(encoding))["classes"] == list(NAMES)
    result = runner.invoke(app, ["materialize", "--artifact", folder, "--classes", "鳥"])
    assert result.exit_code == 1 and b"unknown classes" in result.stderr_bytes


def test_a_process_with_such_a_terminal_prints_no_traceback(artifact_copy: Path) -> None:
    change_info(artifact_copy, classes=NAMES)
    code = "import sys; from d3hr_datasets.cli.app import app; sys.argv[0] = 'd3hr'; app()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "info", str(artifact_copy)],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert "3 (größe, \\u30df".encode("latin-1") in done.stdout


def test_a_name_that_is_no_text_is_printed(tmp_path: Path) -> None:
    lock = tmp_path / os.fsdecode(b"caf\xe9") / ".locks" / "set.000.lock"
    lock.parent.mkdir(parents=True)
    for arguments in (["prune", "--json"], ["list"], ["verify"], ["prune"]):
        lock.touch()
        result = CliRunner().invoke(app, ["cache", *arguments, "--root", str(lock.parent.parent)])
        assert result.exit_code == 0, result.exception
    assert b"caf\\udce9/.locks/set.000.lock" in result.stdout_bytes
