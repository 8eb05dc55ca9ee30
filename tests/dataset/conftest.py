"""Fixtures that several files of this folder take. They import the library, after `pytest_configure`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from d3hr_datasets import D3HRDataset


@pytest.fixture(scope="module")
def filled(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> D3HRDataset:
    """Return a data set all of whose images are cached. Tests only read it."""
    from tests.support.sets import tiny_set

    dataset = tiny_set(tiny_artifact, tmp_path_factory.mktemp("filled"))
    dataset.materialize(progress=False)
    return dataset


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an untrained artifact of 1000 classes. Tests only read it."""
    from d3hr_datasets.classes.class_list import ClassList
    from tests.support.tiny import save_untrained_artifact

    folder = tmp_path_factory.mktemp("imagenet")
    save_untrained_artifact(folder, "imagenet", ClassList.packaged("imagenet"))
    return folder
