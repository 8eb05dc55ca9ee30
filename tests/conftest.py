"""Fixtures of the whole suite: tiny artifacts, one thread, and a home that goes away with the run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

if TYPE_CHECKING:
    from tests.support.hub_server import HubServer

CLASSES = ["ant", "bee", "cat"]  # of the pictures that students are trained on
HOME = Path(tempfile.gettempdir()) / f"d3hr-tests-{os.getpid()}"


# Libraries of Hugging Face read this when they are imported, which the fixtures of some folders do.
os.environ.update(
    HF_HOME=str(HOME / "hf"),
    HF_HUB_CACHE=str(HOME / "hf" / "hub"),
    HF_ASSETS_CACHE=str(HOME / "hf" / "assets"),
    HF_MODULES_CACHE=str(HOME / "hf" / "modules"),
    XDG_CACHE_HOME=str(HOME / "cache"),
    TORCH_HOME=str(HOME / "torch"),
    TORCHINDUCTOR_CACHE_DIR=str(HOME / "inductor"),
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
)


def pytest_unconfigure() -> None:
    """Remove `HOME`."""
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nothing_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test in an empty folder, and see that it leaves nothing there."""
    folder = tmp_path / "working-directory"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert not list(folder.iterdir())


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny artifact. Never write there; `artifact_copy` is for that."""
    from tests.support.tiny import save_tiny_artifact  # after `pytest_configure`: it imports diffusers

    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_artifact(folder / "artifact", folder / "work")
    return folder / "artifact"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve a Hub that this process uses, with an empty cache below the test's folder.

    huggingface_hub read its environment when it was imported: what it read is replaced. Other processes get
    `tests.support.hub_server.environment`.
    """
    from huggingface_hub import close_session, constants

    from tests.support.hub_answers import TOKEN
    from tests.support.hub_server import HubServer

    with HubServer() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "home" / "hub"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
        close_session()


@pytest.fixture
def artifact_copy(tiny_artifact: Path, tmp_path: Path) -> Path:
    """Return the folder of a copy of the tiny artifact that the test may change."""
    return Path(shutil.copytree(tiny_artifact, tmp_path / "artifact"))


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
    """Return a teacher that was trained for an epoch and exported."""
    from d3hr_datasets.experiments.student_run import run_student
    from tests.support.tiny_students import student

    folder = tmp_path_factory.mktemp("teacher")
    export = folder / "exported"
    run_student(student(real, folder, source="whole", ipc=0, epochs=1, export=str(export)), progress=False)
    return export
