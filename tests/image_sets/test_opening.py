"""Sets of every kind, as this project and others write them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from d3hr_datasets import D3HRDataset
from d3hr_datasets.dataset.export import export_image_folder, export_parquet, export_webdataset
from d3hr_datasets.errors import SourceError
from d3hr_datasets.image_sets.opening import open_image_set
from tests.image_sets.making import REAL, grey, levels, pixels_and_labels, save_folder
from tests.support.sets import tiny_set

IN_ORDER = {0: [10], 1: [20], 2: [30]}


@pytest.fixture(scope="module")
def filled(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> D3HRDataset:
    """Return a data set all of whose images are cached. Tests only read it."""
    dataset = tiny_set(tiny_artifact, tmp_path_factory.mktemp("filled"))
    dataset.materialize(progress=False)
    return dataset


@pytest.mark.parametrize("kind", ["cache", "image-folder", "parquet", "parquet-file", "hfds", "webdataset"])
def test_exports_come_back_unchanged(kind: str, filled: D3HRDataset, tmp_path: Path) -> None:
    exports: dict[str, Callable[..., Path]] = {"image-folder": export_image_folder}
    exports |= dict.fromkeys(("parquet", "parquet-file", "hfds"), export_parquet)
    where: Path | str = filled.image_folder
    if kind == "webdataset":
        where = export_webdataset(filled, tmp_path / "set", 4, progress=False)
    elif kind != "cache":
        where = exports[kind](filled, tmp_path / "set", progress=False)
    if kind == "parquet-file":
        where = next(Path(where).rglob("*.parquet"))
    found = open_image_set(f"hfds/{where}" if kind == "hfds" else where, filled.class_list, 1)
    expected = [(label, np.asarray(image).tobytes()) for image, label in filled]  # type: ignore[attr-defined]
    assert pixels_and_labels(found.images) == sorted(expected) and len(expected) == 9
    assert found.classes == filled.classes and found.notes == ()


def test_an_export_of_some_classes_keeps_their_real_labels(
    tiny_artifact: Path, tmp_path: Path, filled: D3HRDataset
) -> None:
    """Its folders are 000-cat and 001-bee_wasp, but "cat" is the real label 2."""
    part = tiny_set(tiny_artifact, tmp_path / "root", classes=["cat", "bee/wasp"])
    folder = export_image_folder(part, tmp_path / "set", progress=False)
    with pytest.raises(SourceError, match="no image of 1 of 3 classes: 'ant'"):
        open_image_set(folder, filled.class_list, 1)
    found = open_image_set(folder, filled.class_list, 1, subset=["bee/wasp", "cat"])
    swapped = [(1 - label, np.asarray(image).tobytes()) for image, label in part]  # type: ignore[attr-defined]
    assert pixels_and_labels(found.images) == sorted(swapped)


def test_shards_whose_names_are_no_list_are_refused(filled: D3HRDataset, tmp_path: Path) -> None:
    folder = export_webdataset(filled, tmp_path / "set", progress=False)
    info = json.loads((folder / "_info.json").read_text())
    (folder / "_info.json").write_text(json.dumps({**info, "classes": "ant"}))
    with pytest.raises(SourceError, match="classes is no list of names"):
        open_image_set(folder, filled.class_list, 1)
    (folder / "_info.json").write_text(json.dumps({"splits": info["splits"]}))
    assert "labels are numbers" in open_image_set(folder, filled.class_list, 1).notes[0]


def parquet(path: Path, labels: list[Any], kind: Any, column: str = "label") -> Path:
    """Write a Parquet file with an image for each label, of the grey level 10, 20, ..."""
    rows = []
    for place, label in enumerate(labels):
        buffer = io.BytesIO()
        grey(10 * (place + 1)).save(buffer, "PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, column: label})
    features = datasets.Features({"image": datasets.Image(), column: kind})
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(path))
    return path


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([2, 0, 1], datasets.ClassLabel(names=["Dress", "ankle boot", "t-shirt/top"])),
        (["T-shirt/top", "Dress", "Ankle boot"], datasets.Value("string")),
        ([0, 1, 2], datasets.Value("int32")),
    ],
    ids=["classes", "strings", "integers"],
)
def test_parquet_of_others(labels: list[Any], kind: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path / "set.parquet", labels, kind)
    assert levels(open_image_set(path, REAL, 1)) == IN_ORDER
    assert levels(open_image_set(f"datasets:{path}", REAL, 3)) == IN_ORDER


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([1, 2, 3], datasets.Value("int64"), "labels 3 to 3; accepted: 0 to 2"),
        ([0, 1, -1], datasets.ClassLabel(names=list(REAL.names)), "label -1, and names for 0 to 2"),
        (["Dress", "Coat", "Bag"], datasets.Value("string"), "not certainly.*'Bag', 'Coat'"),
    ],
)
def test_parquet_with_other_labels_is_refused(
    labels: list[Any], kind: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        open_image_set(parquet(tmp_path / "set.parquet", labels, kind), REAL, 1)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "set.parquet", [0, 1, 2], datasets.Value("int64"), "digit")
    with pytest.raises(SourceError, match="label-column"):
        open_image_set(path, REAL, 1)
    assert levels(open_image_set(path, REAL, 1, label_column="digit", image_column="image")) == IN_ORDER


def test_a_data_set_of_torchvision(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None].expand(3, 28, 28)
    for part in ("train", "t10k"):
        head = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (3, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + images.numpy().tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x03" + bytes([7, 0, 1]))
    names = ("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six")
    real = type(REAL)((*names, "7 - seven", "8 - eight", "9 - nine"))
    found = open_image_set(f"torchvision:MNIST:{tmp_path}", real, 1, subset=["0 - zero", 1, 7])
    assert levels(found) == {2: [10], 0: [20], 1: [30]}


def test_a_folder_with_splits(tmp_path: Path) -> None:
    names = ["T-shirt_top", "Dress", "Ankle boot"]
    save_folder(tmp_path / "set" / "train", names)
    save_folder(tmp_path / "set" / "val", names, [grey(1), grey(2), grey(3)])
    assert levels(open_image_set(tmp_path / "set", REAL, 1)) == IN_ORDER
    assert levels(open_image_set(tmp_path / "set", REAL, 1, split="val")) == {0: [1], 1: [2], 2: [3]}
    with pytest.raises(SourceError, match=r"splits \['train', 'val'\], not 'test'"):
        open_image_set(tmp_path / "set", REAL, 1, split="test")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    real = type(REAL)(("test", "train"))
    assert levels(open_image_set(save_folder(tmp_path / "set", ["train", "test"]), real, 1)) == {
        0: [20],
        1: [10],
    }


def test_what_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no set of images '/nowhere'; accepted: .*Parquet.*\.pt"):
        open_image_set("/nowhere", REAL, 1)
    (tmp_path / "a.csv").write_text("1")
    with pytest.raises(SourceError, match=r"no set of images .*a\.csv"):
        open_image_set(tmp_path / "a.csv", REAL, 1)
    (tmp_path / "flat").mkdir()
    grey(1).save(tmp_path / "flat" / "0.png")
    with pytest.raises(SourceError, match="has no folders; accepted: one folder per class"):
        open_image_set(tmp_path / "flat", REAL, 1)


def test_a_folder_of_a_class_without_images_is_refused(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "set", ["T-shirt_top", "Dress"])
    (folder / "Ankle boot").mkdir()
    with pytest.raises(SourceError, match="Ankle boot"):
        open_image_set(folder, REAL, 1)
