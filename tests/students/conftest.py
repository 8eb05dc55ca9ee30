"""What tests of students share: ten images and an untrained teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models import save_for_hf

from d3hr_datasets.students.models import create_student
from d3hr_datasets.students.views import (
    TensorImages,
)
from tests.support.tiny_students import CLASSES


@pytest.fixture(scope="module")
def images() -> TensorImages:
    """Return ten images of 12 x 12: the class is where the bright stripe is."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10) % 3
    pixels = torch.randint(0, 60, (10, 1, 12, 12), generator=generator, dtype=torch.uint8)
    for index, label in enumerate(labels.tolist()):
        pixels[index, :, 4 * label : 4 * label + 3] += 150
    return TensorImages(pixels, labels, CLASSES)


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained teacher as timm keeps it, whose classes are in another order."""
    torch.manual_seed(1)
    model = create_student("convnet3", 3, 1, 12, {"width": 4})
    folder = tmp_path_factory.mktemp("teacher")
    data = {"input_size": (1, 12, 12), "mean": (0.4,), "std": (0.2,)}
    labels = {"label_names": ["cat", "ant", "bee"]}
    save_for_hf(model, str(folder), labels, safe_serialization=True, data_config=data)
    return folder
