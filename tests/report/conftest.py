"""A set and real images beside it: those it was built from, others, copies; and a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models import save_for_hf

from d3hr_datasets import D3HRDataset
from d3hr_datasets.students.models import create_student
from tests.support.copied_images import IPC, noise, save
from tests.support.tiny import CLASSES, IMAGE_SIZE, TinyImages


@pytest.fixture(scope="module")
def dataset(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> D3HRDataset:
    return D3HRDataset(tiny_artifact, tmp_path_factory.mktemp("root"), IPC, device="cpu")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the images that the tiny artifact was built from."""
    images = [TinyImages()[number] for number in range(12)]
    return save(tmp_path_factory.mktemp("training"), [i for i, _ in images], [label for _, label in images])


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return five other images of each class."""
    return save(tmp_path_factory.mktemp("held-out"), noise(15, 1), [n % 3 for n in range(15)])


@pytest.fixture(scope="module")
def copied(dataset: D3HRDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return training images among which are all images that the data set generates."""
    images = [dataset[number] for number in range(len(dataset))]
    pixels = [image for image, _ in images] + noise(30, 2)
    return save(
        tmp_path_factory.mktemp("copied"), pixels, [t for _, t in images] + [n % 3 for n in range(30)]
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a teacher that nobody trained, of images of one channel."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("teachers") / "tiny-teacher"
    model = create_student("convnet3", 3, 1, IMAGE_SIZE, {"width": 4})
    data = {"input_size": (1, IMAGE_SIZE, IMAGE_SIZE), "mean": (0.4,), "std": (0.2,)}
    save_for_hf(model, str(folder), {"label_names": list(CLASSES)}, safe_serialization=True, data_config=data)
    return folder
