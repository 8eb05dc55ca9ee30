"""The embedded default: what ships, how it is used, what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from PIL import Image
from torchvision.datasets import FashionMNIST
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets import Artifact, D3HRFashionMNIST
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.image_sets.generated_images import dataset_tensors

ROOT = Path(__file__).parents[2]
MEANS = Path(__file__).parents[1] / "data" / "fashion_mnist_class_means.png"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> D3HRFashionMNIST:
    """Return the set of ten images per class, generated."""
    dataset = D3HRFashionMNIST(root=tmp_path_factory.mktemp("images"), ipc=10)
    dataset.materialize(progress=False)
    return dataset


def test_it_looks_like_torchvisions(dataset: D3HRFashionMNIST) -> None:
    assert dataset.classes == FashionMNIST.classes
    assert len(dataset) == 100
    assert dataset.targets.tolist() == [label for label in range(10) for _ in range(10)]
    for index in (0, 35, 99):
        image, label = dataset[index]
        assert (image.mode, image.size, label) == ("L", (28, 28), index // 10)
        assert isinstance(label, int)


def test_every_class_looks_like_its_real_images(dataset: D3HRFashionMNIST) -> None:
    real = torch.stack(pil_to_tensor(Image.open(MEANS)).float().squeeze(0).split(28, dim=1))
    images, labels = dataset_tensors(dataset)
    means = torch.stack([images[labels == label].float().mean(dim=(0, 1)) for label in range(10)])
    distances = torch.cdist(means.flatten(1), real.flatten(1))
    assert distances.argmin(dim=1).tolist() == list(range(10))


def test_images_of_a_class_differ(dataset: D3HRFashionMNIST) -> None:
    images, labels = dataset_tensors(dataset)
    for label in range(10):
        members = images[labels == label].float().flatten(1)
        assert torch.pdist(members).min() > 28 * 5  # grey levels apart, root mean square


def test_construction_reads_no_model(tmp_path: Path) -> None:
    code = """
import sys
from d3hr_datasets import D3HRFashionMNIST
D3HRFashionMNIST(root=sys.argv[1], ipc=10)
assert "diffusers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "cache")], check=True)
    assert not (tmp_path / "cache").exists()


def test_what_ships_is_whole_and_small() -> None:
    folder = embedded_artifact("fashion-mnist")
    artifact = Artifact.load(folder)
    artifact.verify()
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {*artifact.sha256, "d3hr.json"}
    assert {"model/model_index.json", "model/README.md", "README.md"} <= files
    assert sum((folder / name).stat().st_size for name in files) <= 25e6
    assert artifact.info.counts == (6000,) * 10
    assert not [
        name for name in files if not name.endswith((".json", ".safetensors", ".md", ".parquet", ".png"))
    ]


def test_the_cards_are_valid() -> None:
    folder = embedded_artifact("fashion-mnist")
    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == "mit"
    assert "dataset-distillation" in card.data.tags
    assert ModelCard.load(folder / "model" / "README.md").data.library_name == "diffusers"
    for path in (folder / "README.md", folder / "model" / "README.md", ROOT / "docs" / "results.md"):
        figures = path.read_text().partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
        assert "psnr" in figures, f"{path} has no figures: python -m recipes.tables.write_cards"


@pytest.mark.parametrize("file", ["README.md", "hub/d3hr-fashion-mnist/README.md"])
def test_the_first_snippet_runs(file: str) -> None:
    snippet = re.search(r"```python\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)
    assert snippet is not None
    names: dict[str, object] = {}
    exec(snippet[1], names)
    assert isinstance(names["dataset"], D3HRFashionMNIST)


def test_the_wheel_works_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        teacher = [Path(name).name for name in archive.namelist() if "/hub/fashion-mnist-teacher/" in name]
        archive.extractall(tmp_path / "site")
    assert set(teacher) == {"README.md", "config.json", "model.safetensors"}
    code = """
import sys
from d3hr_datasets import D3HRFashionMNIST
dataset = D3HRFashionMNIST(root=sys.argv[1], ipc=1)
print(dataset.artifact.folder)
print(dataset[9][0].tobytes().hex())
from d3hr_datasets.students.teachers import load_teacher
load_teacher("embedded:fashion-mnist", dataset.classes)
from d3hr_datasets.dataset.artifact_registry import embedded_teacher
print(embedded_teacher("fashion-mnist"))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "cache")],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
    )
    folder, pixels, teacher_folder = result.stdout.split()
    assert Path(folder).is_relative_to(tmp_path / "site")
    assert Path(teacher_folder) == tmp_path / "site" / "d3hr_datasets" / "hub" / "fashion-mnist-teacher"
    here = D3HRFashionMNIST(root=tmp_path / "here", ipc=1)[9][0]
    assert np.array_equal(np.frombuffer(bytes.fromhex(pixels), np.uint8), np.asarray(here).ravel())
