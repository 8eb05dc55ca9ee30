"""A tiny artifact, a teacher that tells its classes apart, and the artifact with an order."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3hr_datasets import Artifact
from d3hr_datasets.curation import curate_artifact
from tests.curation.curating import SETTINGS
from tests.support.combining import save_pictures
from tests.support.curated import save_separate_artifact, save_teacher


@pytest.fixture(scope="package")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Return an artifact without an order. Tests only read it."""
    return save_separate_artifact(tmp_path_factory.mktemp("separate"))


@pytest.fixture(scope="package")
def teacher(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of a teacher that tells the classes of the artifact apart."""
    folder = tmp_path_factory.mktemp("teacher")
    return f"local-dir:{save_teacher(artifact, folder / 'tiny-teacher', folder / 'work')}"


@pytest.fixture(scope="package")
def curated(artifact: Artifact, teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Return the artifact with an order of eight images a class. Tests only read it."""
    output = tmp_path_factory.mktemp("curated") / "new"
    return curate_artifact(artifact, output, teacher, SETTINGS, device="cpu", progress=False)


@pytest.fixture(scope="package")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of six real images of each class. Tests only read it."""
    return save_pictures(tmp_path_factory.mktemp("real") / "photos", range(18))
