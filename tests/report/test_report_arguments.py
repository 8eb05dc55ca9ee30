"""Arguments of a report: images that cannot be measured, and folders as people write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from d3hr_datasets.cli.app import app
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.report import write_report
from tests.support.sets import tiny_set
from tests.support.tiny import TinyImages


def test_images_that_are_all_the_same_are_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    for label, name in enumerate(("ant", "000-Bee_wasp", "cat")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            TinyImages()[label][0].save(tmp_path / "images" / name / f"{number}.png")
    dataset = tiny_set(tiny_artifact, tmp_path / "root", ipc=1)
    with pytest.raises(ConfigError, match=r"the 2 real images of the class '.*' .* have the same latents"):
        write_report(dataset, tmp_path / "report", tmp_path / "images", 2, progress=False)
    assert not list(tmp_path.glob("*report*"))


def test_the_command_writes_below_the_home_folder(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    command = [
        "report",
        str(tiny_artifact),
        "--output",
        "~/report",
        "--ipc",
        "1",
        "--device",
        "cpu",
        "--json",
    ]
    done = CliRunner().invoke(app, [*command, "--root", str(tmp_path / "root")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads(
        (tmp_path / "report/report.json").read_text(encoding="utf-8")
    )
