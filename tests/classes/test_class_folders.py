"""Class names as folders and files: what is written by one command is read by the others."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from torchvision.datasets import ImageFolder

from d3hr_datasets import Artifact, D3HRDataset, D3HRFashionMNIST, DecodeConfig
from d3hr_datasets.build.reference_import import import_statistics, imported_inversion
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.folders import (
    LONGEST,
    class_folders,
    file_stem,
    folder_number,
    is_class_folder,
    plain_name,
    without_number,
)
from d3hr_datasets.classes.matching import match_classes
from d3hr_datasets.dataset.export import export_image_folder
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.opening import open_source
from tests.cli.test_cli import fail, succeed
from tests.support.tiny import CLASSES, tiny_info, tiny_pipeline

ALPHABET = "aB3 _-./\\:,*'\"\n\0é猫😀\u202e\ud800"


def _names() -> list[list[str]]:
    """Return lists of distinct names, short ones of few letters and long ones."""
    generator = random.Random(0)
    lists = []
    for length in [*range(1, 9)] * 40 + [150]:
        names = {"".join(generator.choices(ALPHABET, k=generator.randint(0, length))) for _ in range(8)}
        lists.append(sorted(names))
    return lists


def test_folders_are_plain_and_mean_their_class_or_none() -> None:
    certain = 0
    for names in _names():
        folders = class_folders(names)
        assert folders == sorted(folders) and len(set(folders)) == len(names)
        assert all(folder.isascii() and len(folder) <= LONGEST + 4 for folder in folders)
        class_list = ClassList(tuple(names))
        spelled = [plain_name(name).lower() for name in names]
        for label, folder in enumerate(folders):
            found = class_list.find_folder(folder)
            if spelled[label] and spelled.count(spelled[label]) == 1:
                assert found is not None, (folder, names)
                certain += 1
            assert found is None or plain_name(names[label]).lower() in spelled[found], (folder, names)
    assert certain > 400


def test_class_folders_are_told_from_others() -> None:
    for count in (3, 1000, 1001):
        folders = class_folders([f"class {index}" for index in range(count)])
        assert all(is_class_folder(folder) and is_class_folder(folder, count) for folder in folders)
        assert [int(folder_number(folder)) for folder in folders] == list(range(count))
        assert not is_class_folder(f"{count:0{len(folder_number(folders[0]))}d}-class", count)
    assert is_class_folder("0999-a") and not is_class_folder("0999-a", 1000)
    for other in ("03-a", "003", "003_a", "x003-a", "003-a b", "003-a-b", "003-a\n", "٠٠٣-a"):
        assert not is_class_folder(other)
    names = ["003-Bee_wasp", "003-", "0003-a-b", "003-a b\nc", "03-a", "n01440764"]
    assert [without_number(name) for name in names] == ["Bee_wasp", "", "a-b", "a b\nc", "03-a", "n01440764"]


def test_a_class_is_one_file_in_the_folder_or_refused() -> None:
    for name in (name for names in _names() for name in names):
        try:
            stem = file_stem(name)
        except ValueError:
            assert not plain_name(name)
            continue
        assert len(Path(f"folder/{stem}.pt").parts) == 2 and len(stem.encode()) <= LONGEST
        assert stem in (name, plain_name(name)) and not stem.startswith(".")


def test_every_export_of_fashion_mnist_is_matched_with_its_classes(tmp_path: Path) -> None:
    dataset = D3HRFashionMNIST(tmp_path, ipc=1)
    folders = dataset.cache.class_folders
    assert folders[0] == "000-T_shirt_top"
    assert match_classes(folders, dataset.class_list, 10)[1] == {label: label for label in range(10)}
    shuffled = D3HRFashionMNIST(tmp_path, ipc=1, classes=[9, 0, 3]).cache.class_folders
    assert match_classes(shuffled, dataset.class_list, 10)[1] == {0: 9, 1: 0, 2: 3}


@pytest.mark.parametrize(
    ("names", "folder", "label"),
    [
        (("a/b", "a-b"), "000-a_b", None),  # both are spelled so
        (("a/b", "a_b"), "000-a_b", 1),  # one has this very name
        (("größe", "weite"), "000-gr_e", 0),
        (("größe", "gr e"), "000-gr_e", 1),  # as names are compared, "_" is a space
        (("猫", "犬"), "000-", None),
        (("007-Bond", "Bond"), "007-Bond", 0),  # the whole name comes first
        (("cat", "dog"), "12-cat", None),  # no number of this grammar
        (("cat", "dog"), "2024-CAT", 0),
        (("bee/wasp", "cat"), "bee_wasp", 0),
    ],
)
def test_only_what_is_certain_is_a_class(names: tuple[str, ...], folder: str, label: int | None) -> None:
    assert ClassList(names).find_folder(folder) == label


def test_an_order_that_folders_contradict_is_no_same_order() -> None:
    with pytest.raises(ConfigError, match="label 0 of the source is '000-cat', which is class label 2"):
        match_classes(("000-cat", "001-ant", "002-bee_wasp"), ClassList(CLASSES), 3, same_order=True)


def test_build_and_report_take_an_export(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path / "root", 4, classes=[2, 0, 1], device="cpu")
    exported = export_image_folder(dataset, tmp_path / "exported", progress=False)
    assert ImageFolder(str(exported)).classes == ["000-cat", "001-ant", "002-bee_wasp"]
    (tmp_path / "list.json").write_text(json.dumps(CLASSES))
    build = [
        "build",
        exported,
        "--model",
        tiny_artifact / "model",
        "--output",
        tmp_path / "again",
        "--class-list",
        tmp_path / "list.json",
        "--timestep",
        400,
        "--steps",
        10,
        "--image-size",
        14,
        "--device",
        "cpu",
    ]
    assert succeed(*build)["counts"] == [4, 4, 4]
    assert Artifact.load(tmp_path / "again").info.classes == CLASSES
    numbers = succeed(
        "report",
        tiny_artifact,
        "--output",
        tmp_path / "report",
        "--images",
        exported,
        "--ipc",
        2,
        "--images-per-class",
        4,
        "--root",
        tmp_path / "root",
        "--device",
        "cpu",
    )
    assert numbers["inversion"]["num_images"] == 12
    # The classes are those of the names, not of the numbers: what is built of "000-cat" is class 2.
    images = dict(zip(("cat", "ant", "bee_wasp"), sorted(exported.iterdir()), strict=True))
    for name, folder in images.items():
        shutil.copytree(folder, tmp_path / "plain" / name)
    build[1], build[5] = tmp_path / "plain", tmp_path / "plainly"
    succeed(*build)
    for label in range(3):
        mean = Artifact.load(tmp_path / "again").gaussians(400, label).mean
        assert torch.allclose(mean, Artifact.load(tmp_path / "plainly").gaussians(400, label).mean, atol=1e-3)
    assert open_source(str(dataset.image_folder)).classes == open_source(str(exported)).classes


def test_import_reads_the_file_of_a_class_that_is_no_file_name(tmp_path: Path) -> None:
    folder = tmp_path / "statistics"
    folder.mkdir()
    for name in ("ant", "bee_wasp", "cat"):
        torch.save({"mean": torch.zeros(15, 48), "variance": torch.ones(15, 48)}, folder / f"{name}.pt")
    torch.save({"mean": torch.ones(15, 48), "variance": torch.ones(15, 48)}, tmp_path / "outside.pt")
    (folder / "bee").mkdir()
    tiny_pipeline().save_pretrained(tmp_path / "model")
    inversion = imported_inversion((600,), 1000)

    def import_(*classes: str) -> Artifact:
        output = tmp_path / "out"
        info = tiny_info(classes=classes, inversion=inversion, decode=DecodeConfig(600, 50))
        shutil.copytree(tmp_path / "model", output / "model", dirs_exist_ok=True)
        return import_statistics(folder, output, info)

    assert import_(*CLASSES).gaussians(600, 1).mean.abs().sum() == 0
    with pytest.raises(ValueError, match=r"outside\.pt is missing"):
        import_("ant", "../outside", "cat")
    with pytest.raises(ConfigError, match=r"'bee/wasp', 'bee\*wasp'.*would all be in one file, bee_wasp\.pt"):
        import_("ant", "bee/wasp", "bee*wasp")
    with pytest.raises(ConfigError, match=r"no ASCII letter or digit.*--class-list"):
        import_("ant", "/", "cat")


def test_a_folder_of_no_class_is_still_an_error(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path / "root", 1, device="cpu")
    exported = export_image_folder(dataset, tmp_path / "exported", progress=False)
    (exported / "001-bee_wasp").rename(exported / "001-hornet")
    (tmp_path / "list.json").write_text(json.dumps(CLASSES))
    line = fail(
        1,
        "build",
        exported,
        "--model",
        tiny_artifact / "model",
        "--output",
        tmp_path / "out",
        "--class-list",
        tmp_path / "list.json",
    )
    assert "'001-hornet'" in line and "--class-map" in line and not (tmp_path / "out").exists()
