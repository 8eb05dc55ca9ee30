"""Where images come from: folders, torchvision, `datasets`; and what is refused to be a source."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.matching import match_classes
from d3hr_datasets.errors import SourceError
from d3hr_datasets.sources.opening import SourceOptions, open_source
from tests.support.sources import EXPECTED, NAMES, parquet, pixels, png

pytestmark = pytest.mark.usefixtures("datasets_cache")


def test_image_folder(image_folder: Path) -> None:
    opened = open_source(str(image_folder), SourceOptions())
    assert opened.classes == NAMES and opened.description == {"name": "images"}
    assert pixels(opened) == EXPECTED


def test_torchvision_data_sets_that_cannot_be_opened_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"NothingLikeThis.*CIFAR10"):
        open_source("torchvision:NothingLikeThis", SourceOptions())
    with pytest.raises(SourceError, match=r"torchvision:FashionMNIST:ROOT.*--download"):
        open_source(f"torchvision:FashionMNIST:{tmp_path}")
    with pytest.raises(SourceError, match="FakeData is read from no folder"):
        open_source("torchvision:FakeData")
    with pytest.raises(SourceError, match="splits 'train' and 'test', not 'validation'"):
        open_source("torchvision:FashionMNIST", SourceOptions(split="validation"))


def test_torchvisions_imagenet_is_matched_by_wordnet_ids(tmp_path: Path) -> None:
    names = {"n02012849": ("crane",), "n03126707": ("crane",), "n01440764": ("tench", "Tinca tinca")}
    torch.save((names, []), tmp_path / "meta.bin")
    for wnid in names:
        (tmp_path / "train" / wnid).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / wnid / "0.png")
    opened = open_source(f"torchvision:ImageNet:{tmp_path}")
    assert opened.description == {"name": "ImageNet", "split": "train"}
    imagenet = ClassList.packaged("imagenet")
    _, labels = match_classes(opened.classes, imagenet, 1000)
    assert imagenet.wnids is not None
    assert [imagenet.wnids[labels[label] or 0] for label in range(3)] == sorted(names)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("labels", ["classes", "numbers", "strings"])
def test_parquet(streaming: bool, labels: str, tmp_path: Path) -> None:
    kinds: dict[str, tuple[list[Any], Any, Any]] = {
        "classes": ([index % 3 for index in range(12)], datasets.ClassLabel(names=list(NAMES)), NAMES),
        "numbers": ([index % 3 for index in range(12)], datasets.Value("int64"), None),
        "strings": ([NAMES[index % 3] for index in range(12)], datasets.Value("string"), NAMES),
    }
    values, feature, named = kinds[labels]
    folder = parquet(tmp_path / "parquet", values, feature)
    opened = open_source(f"datasets:{folder}", SourceOptions(streaming=streaming))
    if streaming and labels == "strings":
        assert opened.classes is None
        assert pixels(opened) == {key: NAMES[label] for key, label in EXPECTED.items()}
    else:
        assert opened.classes == named and pixels(opened) == EXPECTED
    assert opened.images.has_random_access != streaming


@pytest.mark.parametrize("streaming", [False, True])
def test_webdataset_shards(streaming: bool, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"train-{shard:04d}.tar", "w") as file:
            for index in range(6 * shard, 6 * shard + 6):
                for name, data in (
                    (f"{index:03d}.png", png(index)),
                    (f"{index:03d}.cls", b"%d" % (index % 3)),
                ):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    file.addfile(entry, io.BytesIO(data))
    opened = open_source(f"datasets:{tmp_path / 'shards'}", SourceOptions(streaming=streaming))
    assert opened.classes is None and pixels(opened) == EXPECTED
    assert opened.images.has_random_access != streaming
    if streaming:
        assert opened.images.num_shards == 2
        later = [record.where for record in opened.images.records(1, 4)]
        assert later == ["shard 1, image 4", "shard 1, image 5"]


@pytest.mark.parametrize(
    ("where", "options", "said"),
    [
        ("nowhere", {}, "no folder 'nowhere'.*torchvision:NAME"),
        ("datasets:nobody/nothing", {}, "nobody/nothing.* cannot be opened"),
        ("datasets:{folder}", {"split": "test"}, "cannot be opened, split 'test'"),
        ("datasets:{folder}", {"label_column": "klass"}, "no column 'klass'.*label"),
        ("datasets:{folder}", {"image_column": "label"}, "'label'"),
        ("datasets:{folder}/../note.txt", {}, r"note.txt is no data set.*\.parquet"),
        ("datasets:{folder}/../bad.parquet", {}, "bad.parquet.* cannot be opened"),
        ("{folder}", {}, "no folder of images"),
    ],
)
def test_sources_that_are_none_are_refused(where: str, options: Any, said: str, tmp_path: Path) -> None:
    folder = parquet(tmp_path / "parquet", [index % 3 for index in range(12)], datasets.Value("int64"))
    (tmp_path / "note.txt").write_text("no images")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SourceError, match=said):
        opened = open_source(where.format(folder=folder), SourceOptions(**options))
        pixels(opened)
