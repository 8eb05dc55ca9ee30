"""The door for data sets of others: what it makes of their attributes, and that it writes none."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image
from torchvision.datasets import CIFAR10, EuroSAT, ImageFolder

import d3hr_datasets
from d3hr_datasets.errors import ConfigError, UnreadableImageError
from d3hr_datasets.sources.opening import open_source
from d3hr_datasets.sources.records import ImageRecord, Images
from d3hr_datasets.sources.relabel import relabel
from d3hr_datasets.sources.resizing import read_pixels
from d3hr_datasets.sources.user_datasets import as_images
from tests.sources.test_foreign_images import EPS
from tests.support.tiny import TinyImages

PACKAGE = Path(d3hr_datasets.__file__).parent
DOOR = PACKAGE / "sources" / "user_datasets.py"
OF_TORCHVISION = (
    PACKAGE / "dataset" / "real_test_sets.py"
)  # makes torchvision's own data sets, and changes them
LABELS = [0, 1, 2] * 4
FOREIGN = {
    "targets",
    "labels",
    "_labels",
    "samples",
    "root",
    "identity",
    "wnids",
    "data",
    "classes",
    "loader",
}
KINDS = {"Images", "IndexedImages", "StreamedImages", "ImageStream", "TorchvisionLike"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of three classes of two images."""
    for name in ("ant", "bee", "cat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (8, 8), 20 * number).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def items(images: Images) -> list[tuple[bytes, Any]]:
    """Return pixels and label of every image."""
    read = [record.read() for record in images.records(0, 0)]
    return [(np.asarray(image).tobytes(), label) for image, label in read]


EXPECTED = [(np.asarray(image).tobytes(), label) for image, label in map(TinyImages().__getitem__, range(12))]


@pytest.mark.parametrize("source", [TinyImages(), list(map(TinyImages().__getitem__, range(12)))])
def test_an_own_data_set_needs_no_attributes(source: Any) -> None:
    images = as_images(source)
    assert (images.num_images, images.num_shards, images.has_random_access) == (12, 1, True)
    assert (images.labels, images.identity, images.identity_of(range(12))) == (None, "", "")
    assert items(images) == EXPECTED
    assert [(record.where, record.name) for record in images.records(0, 10)] == [
        ("image 10", "10"),
        ("image 11", "11"),
    ]
    assert as_images(images) is images


def test_labels_are_those_of_targets() -> None:
    class Known(TinyImages):
        def __init__(self, **attributes: Any) -> None:
            vars(self).update(attributes)

    assert as_images(Known(targets=np.array(LABELS))).labels == LABELS
    with pytest.raises(ConfigError, match="`targets` of Known has 5 labels for 12 images"):
        as_images(Known(targets=LABELS[:5]))
    # Chunks are named by labels that a build finds; names of torchvision's own data sets are no part of it.
    assert as_images(Known(labels=LABELS)).labels is None
    for attributes in ({"labels": LABELS}, {"_labels": LABELS}, {"targets": [0], "labels": LABELS}):
        opened = open_source(Known(classes=["a", "b", "c"], **attributes))
        assert opened.images.labels == LABELS and items(opened.images) == EXPECTED
        assert (opened.classes, opened.description) == (("a", "b", "c"), {"name": "Known"})
    assert open_source(Known(classes=[("a", "b"), ("c",)])).classes is None
    assert open_source(Known(classes=[("a", "b"), ("c",)], wnids=["n1", "n2"])).classes == ("n1", "n2")


def test_files_are_those_of_samples(folder: Path) -> None:
    images = as_images(ImageFolder(str(folder)))
    records = list(images.records(0, 2))
    assert (records[0].where, records[0].name) == (f"image 2 ({folder}/bee/0.png)", "bee/0.png")
    before = images.identity_of([2]), images.identity_of([3])
    Image.new("L", (40, 40), 7).save(folder / "bee" / "0.png")
    assert images.identity_of([2]) != before[0] and images.identity_of([3]) == before[1]
    kept = relabel(images, {0: None, 1: 1, 2: 0})
    assert [record.name for record in kept.records(0, 0)] == [record.name for record in records]
    assert kept.labels == [1, 1, 0, 0] and kept.identity_of([1]) == before[1]


def test_streams_of_others_are_streams() -> None:
    class Shards:
        num_shards, num_images, identity = 2, 12, "of Monday"

        def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
            for index in range(6 * shard + start, 6 * shard + 6):
                yield ImageRecord(f"number {index}", str(index), lambda index=index: TinyImages()[index])  # type: ignore[misc]

    images = as_images(Shards())
    assert (images.num_shards, images.num_images, images.identity) == (2, 12, "of Monday")
    assert (images.has_random_access, images.labels, images.identity_of([0])) == (False, None, "")
    other = relabel(images, {0: 1, 1: 2, 2: 0})
    found = [(record.where, record.read()[1]) for record in other.records(1, 4)]
    assert found == [("number 10", 2), ("number 11", 0)]
    with pytest.raises(ConfigError, match="leave out --streaming"):
        relabel(images, {0: None, 1: 1, 2: 0})
    with pytest.raises(ConfigError, match=r"number 6 has label 0, which is no class"):
        next(relabel(images, {1: 1}).records(1, 0)).read()


@pytest.mark.parametrize(
    ("source", "said"), [(object(), "object has no `targets`, `__len__`, `__getitem__`"), (3, "int has no")]
)
def test_what_is_no_data_set_is_refused(source: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        as_images(source)
    with pytest.raises(ConfigError, match=said):
        open_source(source)


def test_nothing_is_written_onto_data_sets_of_others(folder: Path) -> None:
    class Pixels(CIFAR10):
        def __init__(self) -> None:
            self.data, self.targets, self.classes = np.zeros((6, 8, 8, 3), np.uint8), LABELS[:6], ["a", "b"]
            self.transform = self.target_transform = None

    for dataset in (ImageFolder(str(folder)), Pixels(), TinyImages()):
        before = dict(vars(dataset))
        for images in (as_images(dataset), open_source(dataset).images):
            items(relabel(images, {0: 2, 1: 1, 2: 0}))
        assert vars(dataset) == before
        assert all(vars(dataset)[name] is value for name, value in before.items())


def test_torchvisions_class_folders_are_read_by_open_image(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[EuroSAT, dict[str, Any]]] = []

    class Noted(EuroSAT):
        def __init__(self, root: str, download: bool = False) -> None:
            super().__init__(root, download=download)
            opened.append((self, dict(vars(self))))

    monkeypatch.setattr(torchvision.datasets, "EuroSAT", Noted)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("a program was run"))
    (tmp_path / "root" / "eurosat").mkdir(parents=True)
    folder.rename(tmp_path / "root" / "eurosat" / "2750")
    (tmp_path / "root" / "eurosat" / "2750" / "ant" / "1.png").write_bytes(EPS)
    images = open_source(f"torchvision:EuroSAT:{tmp_path / 'root'}").images
    first, second, third, *_ = images.records(0, 0)
    assert third.read()[0].mode == "L" and third.read()[1] == 1  # its own loader makes RGB of all
    assert first.name == "eurosat/2750/ant/0.png"
    with pytest.raises(UnreadableImageError, match="cannot identify"):
        read_pixels(second, 8, "L")
    ((dataset, before),) = opened
    assert vars(dataset) == before


def test_images_go_to_other_processes(folder: Path) -> None:
    images = relabel(open_source(str(folder)).images, {0: 2, 1: None, 2: 0})
    assert items(pickle.loads(pickle.dumps(images))) == items(images)


def test_no_attribute_of_others_is_looked_for_behind_the_door() -> None:
    found = []
    for path in (*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "recipes").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if path not in {DOOR, OF_TORCHVISION} and (name := looked_for(node) or written(node)):
                found.append(f"{path}:{node.lineno}: {name}")  # type: ignore[attr-defined]
    assert not found
    seen = map(looked_for, ast.walk(ast.parse(DOOR.read_text(encoding="utf-8"))))
    assert {"samples", "root", "identity", "wnids", "data", "Images", "ImageStream"} <= set(seen)


def looked_for(node: ast.AST) -> str:
    """Return the attribute of a data set, or the kind of images, that a call asks an object for."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
        asked = node.args[1]
        if node.func.id in {"getattr", "hasattr", "setattr"} and isinstance(asked, ast.Constant):
            return asked.value if asked.value in FOREIGN else ""
        if node.func.id in {"isinstance", "issubclass"}:
            return next((name.id for name in ast.walk(asked) if getattr(name, "id", "") in KINDS), "")  # type: ignore[attr-defined]
    return ""


def written(node: ast.AST) -> str:
    """Return the attribute of a data set that is written onto an object, but for a class's onto its own."""
    is_foreign = isinstance(node, ast.Attribute) and node.attr in FOREIGN and isinstance(node.ctx, ast.Store)
    if is_foreign and isinstance(node, ast.Attribute) and ast.unparse(node.value) != "self":
        return node.attr
    return ""
