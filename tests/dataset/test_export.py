"""Exports, each read back by the library it is made for."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from timm.data.dataset_factory import create_dataset
from timm.data.readers.reader_wds import _parse_split_info
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets import D3HRDataset
from d3hr_datasets.dataset.export import export_image_folder, export_parquet, export_webdataset
from d3hr_datasets.errors import CacheError, ConfigError, ExportError, MissingExtraError, ModelNotFoundError

IPC = 3
CHOSEN = ["cat", "bee/wasp"]  # not in the order of the artifact, and a name that is no file name
EXPORTS = [export_image_folder, export_parquet, export_webdataset]

Export = Callable[..., Path]


@pytest.fixture(scope="module")
def dataset(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> D3HRDataset:
    """Return a generated data set. Tests only read it."""
    root = tmp_path_factory.mktemp("root")
    dataset = D3HRDataset(tiny_artifact, root, IPC, classes=CHOSEN, device="cpu")
    dataset.materialize(progress=False)
    return dataset


@pytest.fixture
def loaded(dataset: D3HRDataset, tmp_path: Path) -> Callable[..., datasets.Dataset]:
    """Return `datasets.load_dataset` of the training split, its own cache in the test's folder."""

    def load(*args: Any, **kwargs: Any) -> datasets.Dataset:
        return datasets.load_dataset(*args, split="train", cache_dir=str(tmp_path / "hf"), **kwargs)

    return load


def pixels(image: Any) -> Any:
    """Return the grey levels of a PIL image, converted by no one."""
    assert image.mode == "L"
    return np.asarray(image)


def sha256_of_files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_torchvision_reads_the_image_folder(dataset: D3HRDataset, tmp_path: Path) -> None:
    assert export_image_folder(dataset, tmp_path / "out") == tmp_path / "out"
    folder = ImageFolder(tmp_path / "out")
    assert folder.classes == ["000-cat", "001-bee_wasp"]
    assert folder.targets == dataset.targets == [0, 0, 0, 1, 1, 1]
    for index, (path, _) in enumerate(folder.samples):
        assert Path(path).read_bytes() == dataset.cache.path(*divmod(index, IPC)).read_bytes()
        assert np.array_equal(pixels(folder[index][0].convert("L")), pixels(dataset[index][0]))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # timm's
def test_timm_reads_the_image_folder(dataset: D3HRDataset, tmp_path: Path) -> None:
    folder = create_dataset("", root=str(export_image_folder(dataset, tmp_path / "out")), input_img_mode="L")
    assert len(folder) == len(dataset)
    for index, (image, label) in enumerate(folder):
        assert label == dataset.targets[index]
        assert np.array_equal(pixels(image), pixels(dataset[index][0]))


def test_datasets_reads_the_parquet_file(
    dataset: D3HRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: Callable[..., Any]
) -> None:
    monkeypatch.setattr("d3hr_datasets.dataset.export.ROWS_PER_GROUP", 4)  # two groups
    assert export_parquet(dataset, tmp_path / "out") == tmp_path / "out"
    assert list(sha256_of_files(tmp_path / "out")) == ["data/train-00000-of-00001.parquet"]
    table = loaded(str(tmp_path / "out"))
    assert table.features == datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=CHOSEN)
    )
    assert list(table["label"]) == dataset.targets
    for index, image in enumerate(table["image"]):
        assert np.array_equal(pixels(image), pixels(dataset[index][0]))
    encoded = table.cast_column("image", datasets.Image(decode=False))[5]["image"]
    assert encoded["path"] == "00002.png" or encoded["path"].endswith("001-bee_wasp/00002.png")
    assert encoded["bytes"] == dataset.cache.path(1, 2).read_bytes()


def test_timm_reads_the_parquet_file(dataset: D3HRDataset, tmp_path: Path) -> None:
    export_parquet(dataset, tmp_path / "out")
    table = create_dataset(
        f"hfds/{tmp_path / 'out'}", root=str(tmp_path / "hf"), split="train", input_img_mode="L"
    )
    assert [label for _, label in table] == dataset.targets
    assert np.array_equal(pixels(table[4][0]), pixels(dataset[4][0]))


def test_datasets_reads_the_shards(dataset: D3HRDataset, tmp_path: Path, loaded: Callable[..., Any]) -> None:
    export_webdataset(dataset, tmp_path / "out", shard_size=4)
    assert list(sha256_of_files(tmp_path / "out")) == ["_info.json", "train-000000.tar", "train-000001.tar"]
    for table in (
        loaded(str(tmp_path / "out")),
        loaded("webdataset", data_files={"train": str(tmp_path / "out" / "*.tar")}),
    ):
        assert list(table["cls"]) == [0, 1, 0, 1, 0, 1]
        assert list(table["__key__"]) == [f"{index:08d}" for index in range(6)]
        for index, image in enumerate(table["png"]):
            position, label = divmod(index, 2)
            assert np.array_equal(pixels(image), pixels(dataset[label * IPC + position][0]))


def test_timm_knows_the_shards(dataset: D3HRDataset, tmp_path: Path) -> None:
    info = json.loads((export_webdataset(dataset, tmp_path / "out", 4) / "_info.json").read_text())
    split = _parse_split_info(
        "train", info
    )  # what its reader does with the file; webdataset is no dependency
    assert (split.num_samples, split.shard_lengths) == (6, (4, 2))
    assert split.filenames == ("train-000000.tar", "train-000001.tar")
    assert (info["name"], info["classes"]) == ("tiny", CHOSEN)


def test_shards_name_neither_time_nor_owner(dataset: D3HRDataset, tmp_path: Path) -> None:
    export_webdataset(dataset, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as shard:
        members = shard.getmembers()
    assert [member.name for member in members[:4]] == [
        "00000000.png",
        "00000000.cls",
        "00000001.png",
        "00000001.cls",
    ]
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert member.mode == 0o644


@pytest.mark.parametrize("export", EXPORTS)
def test_the_same_data_set_gives_the_same_bytes(export: Export, dataset: D3HRDataset, tmp_path: Path) -> None:
    first, second = (sha256_of_files(export(dataset, tmp_path / name)) for name in ("first", "second"))
    assert first == second and first


@pytest.mark.parametrize("export", EXPORTS)
def test_transforms_are_not_applied_and_missing_images_are_generated(
    export: Export, dataset: D3HRDataset, tmp_path: Path
) -> None:
    fresh = D3HRDataset(
        dataset.artifact.folder,
        tmp_path / "root",
        IPC,
        classes=CHOSEN,
        device="cpu",
        transform=pil_to_tensor,
        target_transform=lambda label: label + 10,
    )
    expected = sha256_of_files(export(dataset, tmp_path / "expected"))
    assert sha256_of_files(export(fresh, tmp_path / "out", progress=False)) == expected


@pytest.mark.parametrize("export", EXPORTS)
def test_an_empty_folder_is_taken_and_any_other_refused(
    export: Export, dataset: D3HRDataset, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    before = sha256_of_files(export(dataset, output))
    with pytest.raises(ExportError, match=rf"{re.escape(str(output))} exists .* give a new folder"):
        export(dataset, output)
    assert sha256_of_files(output) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="exists"):
        export(dataset, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("export", EXPORTS)
def test_a_full_disk_leaves_nothing(
    export: Export, dataset: D3HRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(dataset: D3HRDataset, label: int, position: int) -> bytes:
        calls.append(label)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return dataset.cache.path(label, position).read_bytes()

    (tmp_path / "parent").mkdir()
    with monkeypatch.context() as patch, pytest.raises(ExportError, match=r"No space left.*Free some space"):
        patch.setattr("d3hr_datasets.dataset.export._png", fail)
        export(dataset, tmp_path / "parent" / "out")
    assert not list((tmp_path / "parent").iterdir())
    assert export(dataset, tmp_path / "parent" / "out").is_dir()
    assert [path.name for path in (tmp_path / "parent").iterdir()] == ["out"]


def test_a_folder_that_appears_meanwhile_is_kept(
    dataset: D3HRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def materialize(progress: bool) -> Path:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()
        return dataset.image_folder

    monkeypatch.setattr(dataset, "materialize", materialize)
    with pytest.raises(ExportError, match="not empty"):
        export_image_folder(dataset, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name != "working-directory"] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]


def test_images_that_vanish_meanwhile_are_an_error_of_the_cache(
    dataset: D3HRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = D3HRDataset(dataset.artifact.folder, tmp_path / "root", IPC, device="cpu")
    monkeypatch.setattr(gone, "materialize", lambda progress: gone.image_folder)
    with pytest.raises(CacheError, match=r"00000\.png was removed while it was exported; export again"):
        export_image_folder(gone, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_errors_of_the_data_set_stay_what_they_are(artifact_copy: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(artifact_copy, tmp_path / "root", 1, device="cpu")
    for path in sorted((artifact_copy / "model").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (artifact_copy / "model").rmdir()
    with pytest.raises(ModelNotFoundError):
        export_image_folder(dataset, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shard_size", [0, True, 2.0])
def test_shard_sizes_are_checked_first(shard_size: Any, dataset: D3HRDataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shard_size"):
        export_webdataset(dataset, tmp_path / "out", shard_size)
    assert not (tmp_path / "out").exists()


def test_parquet_without_datasets_says_what_to_install(
    dataset: D3HRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match="the extra 'export'"):
        export_parquet(dataset, tmp_path / "out")


def test_one_of_several_processes_exports_nothing(
    dataset: D3HRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ExportError, match="one process"):
        export_image_folder(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()
