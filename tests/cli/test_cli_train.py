"""`d3hr train student` and `d3hr evaluate`: what they print, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from d3hr_datasets.experiments import train_table
from tests.cli.test_cli import d3hr, fail, succeed
from tests.support.pools import PoolHere
from tests.support.tiny_students import CLASSES

TINY = ["--epochs", 2, "--set", "student_args={width: 4, first_padding: 1}", "--set", "batch_size=4"]


@pytest.fixture(scope="session")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of real images of one channel: train/ and val/, three classes."""
    folder = tmp_path_factory.mktemp("grey")
    for split, number in (("train", 4), ("val", 2)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                Image.new("L", (12, 12), 80 * label + index).save(folder / split / name / f"{index}.png")
    return folder


def test_a_student_is_trained_once(real: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        "student",
        "dc",
        "--dataset",
        real,
        "--ipc",
        2,
        "--seed",
        1,
        "--output",
        tmp_path,
        *TINY,
    ]
    result = d3hr(*arguments, "--source", "random_real")
    assert result.exit_code == 0, result.output
    accuracy, folder = result.stdout.splitlines()
    assert accuracy.startswith("top-1 ") and "on 6 images (test set), after 2 epochs on 6 images" in accuracy
    assert "settings of fashion-mnist" in result.stderr
    settings = (Path(folder) / "settings.yaml").read_text()
    assert "image_size: 12" in settings and "channels: 3" in settings and "seed: 1" in settings
    before = (Path(folder) / "result.json").stat().st_mtime_ns
    again = succeed(*arguments, "--source", "random_real")
    assert again["folder"] == folder and (Path(folder) / "result.json").stat().st_mtime_ns == before
    whole = succeed(*arguments, "--source", "whole")
    assert (whole["num_images"], whole["settings"]["ipc"]) == (12, 0)
    message = fail(1, *arguments, "--artifact", tiny_artifact)  # other classes than those of the real images
    assert "the training set ['ant', 'bee/wasp', 'cat']" in message


def test_grey_pictures_suit_a_protocol_of_one_channel(grey: Path, tmp_path: Path) -> None:
    """An ImageFolder reads them as RGB, which failed in the first convolution."""
    shutil.copytree(grey / "train", tmp_path / "set")
    arguments = ["train", "student", "dc", "--dataset", grey, "--output", tmp_path / "out", *TINY]
    found = succeed(*arguments, "--images", tmp_path / "set")
    assert (found["settings"]["channels"], found["num_images"], found["settings"]["ipc"]) == (1, 12, 4)
    Image.new("RGB", (12, 12), (255, 0, 0)).save(tmp_path / "set" / "bee" / "1.png")
    message = fail(1, *arguments, "--images", tmp_path / "set")
    assert "bee/1.png" in message and "colour" in message


def test_tensors_are_evaluated(grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_table, "ProcessPoolExecutor", PoolHere)
    images = (torch.arange(6).view(6, 1, 1, 1).expand(6, 1, 12, 12) / 6 - 0.5) / 0.25
    torch.save({"images": images, "labels": torch.tensor([0, 0, 1, 1, 2, 2])}, tmp_path / "set.pt")
    arguments = [
        "evaluate",
        tmp_path / "set.pt",
        "--real",
        grey,
        "--seeds",
        1,
        "--output",
        tmp_path / "out",
        *TINY,
    ]
    message = fail(1, *arguments)
    assert "normalised" in message
    result = d3hr(*arguments, "--normalized", "--set", "mean=[0.5]", "--set", "std=[0.25]")
    assert result.exit_code == 0, result.output
    assert result.stdout == (tmp_path / "out" / "evaluation.md").read_text()
    assert "| set.pt, convnet3, hard labels |" in result.stdout and "one seed" in result.stdout
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["rows"][0]["num_images"] == 6 and document["bytes"]["files"] > 3000


def test_an_artifact_is_evaluated_against_a_folder(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_table, "ProcessPoolExecutor", PoolHere)
    message = fail(1, "evaluate", tiny_artifact)
    assert "say with --real where its real images are" in message
    assert "no protocol is named 'cd'" in fail(1, "evaluate", "--protocol", "cd")
    assert "hard, soft or stored" in fail(2, "evaluate", "--labels", "harder")


def test_what_a_student_sees_is_said_once(real: Path) -> None:
    message = fail(2, "train", "student", "dc", "--source", "whole", "--images", real)
    assert "--source and --images" in message
    assert "need a teacher" in fail(1, "train", "student", "soft", "--dataset", real, "--ipc", 2)
    assert "--set ipc=" in fail(2, "train", "student", "dc", "--set", "ipc=3")
    assert "--data is for named data sets" in fail(2, "evaluate", real, "--real", real, "--data", real)
