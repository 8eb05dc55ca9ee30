"""What tests of recipes share: folders of images, and a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from recipes.train.student import run_student
from tests.recipes.tiny_trainings import CLASSES, student


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Return a folder of three classes of colour pictures of different sizes, eight each."""
    for label, name in enumerate(("red", "green", "blue")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(8):
            colour = [20 * index] * 3
            colour[label] = 255
            Image.new("RGB", (20 + index, 24), tuple(colour)).save(
                tmp_path / "images" / name / f"{index}.png"
            )
    return tmp_path / "images"


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of real images: train/ and val/, three classes of 12 x 12 pictures of one colour."""
    folder = tmp_path_factory.mktemp("real")
    for split, number in (("train", 4), ("val", 2)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                colour = [40 + 20 * index] * 3
                colour[label] = 255
                Image.new("RGB", (12, 12), tuple(colour)).save(folder / split / name / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def teacher(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a teacher that a recipe trained for an epoch and exported."""
    folder = tmp_path_factory.mktemp("teacher")
    export = folder / "exported"
    run_student(student(real, folder, source="whole", ipc=0, epochs=1, export=str(export)), progress=False)
    return export
