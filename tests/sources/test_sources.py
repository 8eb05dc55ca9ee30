"""Where images come from: folders, torchvision, `datasets`; and how their classes become the model's."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from d3hr_datasets import Artifact
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.matching import LabelMap, match_classes, read_class_list, read_class_map
from d3hr_datasets.errors import ConfigError, SourceError
from d3hr_datasets.sources.opening import OpenedSource, SourceOptions, open_source
from d3hr_datasets.sources.records import ImageRecord
from d3hr_datasets.sources.relabel import relabel
from d3hr_datasets.sources.user_datasets import as_images
from tests.support.tiny import CLASSES, TinyImages, tiny_info, tiny_model

NAMES = ("ant", "bee_wasp", "cat")
MODEL = ClassList(CLASSES, ("n1", "n2", "n3"))


@pytest.fixture(autouse=True)
def _datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Return a folder of the tiny images."""
    for index in range(12):
        image, label = TinyImages()[index]
        (tmp_path / "images" / NAMES[label]).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "images" / NAMES[label] / f"{index:02d}.png")
    return tmp_path / "images"


def _png(index: int) -> bytes:
    buffer = io.BytesIO()
    TinyImages()[index][0].save(buffer, "PNG")
    return buffer.getvalue()


def _parquet(folder: Path, labels: list[Any], feature: Any) -> Path:
    folder.mkdir()
    rows = {"picture": [{"bytes": _png(index), "path": None} for index in range(12)], "label": labels}
    features = datasets.Features({"picture": datasets.Image(), "label": feature})
    data = datasets.Dataset.from_dict(rows, features=features)
    for shard in range(2):
        data.shard(2, shard).to_parquet(folder / f"train-{shard:05d}-of-00002.parquet")
    return folder


def _pixels(opened: OpenedSource) -> dict[bytes, Any]:
    """Return the label of each image, by its pixels."""
    shards = range(opened.images.num_shards)
    items = [record.read() for shard in shards for record in opened.images.records(shard, 0)]
    return {np.asarray(image.convert("L")).tobytes(): label for image, label in items}


EXPECTED = {np.asarray(image).tobytes(): label for image, label in map(TinyImages().__getitem__, range(12))}


def test_image_folder(image_folder: Path) -> None:
    opened = open_source(str(image_folder), SourceOptions())
    assert opened.classes == NAMES and opened.description == {"name": "images"}
    assert _pixels(opened) == EXPECTED


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
    folder = _parquet(tmp_path / "parquet", values, feature)
    opened = open_source(f"datasets:{folder}", SourceOptions(streaming=streaming))
    if streaming and labels == "strings":
        assert opened.classes is None
        assert _pixels(opened) == {key: NAMES[label] for key, label in EXPECTED.items()}
    else:
        assert opened.classes == named and _pixels(opened) == EXPECTED
    assert opened.images.has_random_access != streaming


@pytest.mark.parametrize("streaming", [False, True])
def test_webdataset_shards(streaming: bool, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"train-{shard:04d}.tar", "w") as file:
            for index in range(6 * shard, 6 * shard + 6):
                for name, data in (
                    (f"{index:03d}.png", _png(index)),
                    (f"{index:03d}.cls", b"%d" % (index % 3)),
                ):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    file.addfile(entry, io.BytesIO(data))
    opened = open_source(f"datasets:{tmp_path / 'shards'}", SourceOptions(streaming=streaming))
    assert opened.classes is None and _pixels(opened) == EXPECTED
    assert opened.images.has_random_access != streaming
    if streaming:
        assert opened.images.num_shards == 2
        later = [record.where for record in opened.images.records(1, 4)]
        assert later == ["shard 1, image 4", "shard 1, image 5"]


class _Noted:
    """A stream that notes what is read of it."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.num_shards = getattr(source, "num_shards", 1)
        self.num_images = getattr(source, "num_images", None)
        self.read: list[str] = []

    def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
        for record in self.source.records(shard, start):
            self.read.append(record.where)
            yield record


def test_streams_take_chunks_of_the_same_images_and_labels_only(tmp_path: Path) -> None:
    classes = datasets.ClassLabel(names=list(NAMES))

    def write(labels: list[int], others: list[int], first: int = 0) -> None:
        pictures = [{"bytes": _png((first + index) % 12), "path": None} for index in range(12)]
        rows = {"picture": pictures, "label": labels, "other": others}
        features = datasets.Features({"picture": datasets.Image(), "label": classes, "other": classes})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data.parquet")

    def build(work: str, column: str = "label", swapped: bool = False) -> torch.Tensor:
        opened = open_source(
            f"datasets:{tmp_path / 'data.parquet'}", SourceOptions(streaming=True, label_column=column)
        )
        labels: LabelMap = {0: 1, 1: 0, 2: 2} if swapped else {0: 0, 1: 1, 2: 2}
        info = dataclasses.replace(tiny_info(dtype="float32"), source=opened.description)
        artifact = build_artifact(
            relabel(opened.images, labels),
            tiny_model(),
            tmp_path / "artifact",
            info,
            tmp_path / work,
            chunk_size=4,
            progress=False,
        )
        return artifact.gaussians(400).mean

    write([index % 3 for index in range(12)], [index // 4 for index in range(12)])
    seen = [build("work"), build("work", "other"), build("work", swapped=True)]
    write([index % 3 for index in range(12)], [index // 4 for index in range(12)], first=1)
    seen.append(build("work"))
    fresh = build("fresh")
    assert torch.equal(seen[3], fresh)
    for index, one in enumerate(seen):
        assert all(not torch.equal(one, other) for other in seen[:index])


def test_streamed_build_goes_on_and_is_that_of_the_images(tmp_path: Path) -> None:
    folder = _parquet(
        tmp_path / "parquet", [index % 3 for index in range(12)], datasets.ClassLabel(names=list(NAMES))
    )

    def build(streaming: bool) -> tuple[Artifact, list[str]]:
        opened = open_source(f"datasets:{folder}", SourceOptions(streaming=streaming))
        _, labels = match_classes(opened.classes, MODEL, 3, same_order=True)
        images = _Noted(relabel(opened.images, labels))
        artifact = build_artifact(
            images if streaming else images.source,
            tiny_model(),
            tmp_path / f"artifact-{streaming}",
            tiny_info(dtype="float32"),
            tmp_path / "work",
            batch_size=2,
            chunk_size=4,
            progress=False,
        )
        return artifact, images.read

    direct, _ = build(streaming=False)
    streamed, read = build(streaming=True)
    assert len(read) == 12
    sorted((tmp_path / "work").glob("*-00001-000000000.safetensors"))[0].unlink()
    resumed, read = build(streaming=True)
    assert read == [f"shard 1, image {number}" for number in range(4)]
    assert streamed.info.counts == resumed.info.counts == direct.info.counts == (4, 4, 4)
    assert streamed.info.source["fingerprint"] == direct.info.source["fingerprint"]
    assert streamed.sha256 == resumed.sha256
    torch.testing.assert_close(streamed.gaussians(400).mean, direct.gaussians(400).mean, rtol=0, atol=2e-6)


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
    folder = _parquet(tmp_path / "parquet", [index % 3 for index in range(12)], datasets.Value("int64"))
    (tmp_path / "note.txt").write_text("no images")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SourceError, match=said):
        opened = open_source(where.format(folder=folder), SourceOptions(**options))
        _pixels(opened)


# ---- classes


def test_classes_match_by_name_or_wnid() -> None:
    named = ClassList(("tench, Tinca tinca", "goldfish", "Great_White shark"), ("n1", "n2", "n3"))
    for source in (
        ("Tench", "great white shark", "goldfish"),
        ("n1", "n3", "n2"),
        ("tinca tinca", "n3", "goldfish"),
    ):
        assert match_classes(source, named, 3) == (named, {0: 0, 1: 2, 2: 1})


@pytest.mark.parametrize(
    ("source", "model", "options", "said"),
    [
        (("ant", "bee", "cat"), MODEL, {}, "1 of 3 classes .* 'bee'.*--class-map"),
        (("ant", "Ant", "cat"), MODEL, {}, "several classes of the source are the model's 'ant'"),
        (("ant", "cat", "dog"), ClassList(("crane", "crane, bird", "cat")), {}, "'ant', 'dog'"),
        (("crane",), ClassList(("crane, bird", "crane, machine")), {}, "2 classes|not certainly"),
        (NAMES, None, {}, "--class-list"),
        (NAMES, ClassList(("a", "b")), {}, "has 2 classes, the model 3"),
        (("cat", "bee_wasp", "ant"), MODEL, {"same_order": True}, "label 0 of the source is 'cat'.*label 2"),
        (("a", "b"), MODEL, {"same_order": True}, "source has 2 classes, the model 3"),
        (None, None, {"same_order": True}, "neither"),
        (NAMES, MODEL, {"class_map": {"ant": 0, "bee_wasp": 1}}, "lacks 'cat'"),
        (NAMES, MODEL, {"class_map": {"ant": 0, "bee_wasp": 1, "cat": 2, "dog": 0}}, "has no 'dog'"),
        (NAMES, MODEL, {"class_map": {"ant": 3, "bee_wasp": 1, "cat": 2}}, "'ant': 3; accepted.*0 to 2"),
        (NAMES, MODEL, {"class_map": {"ant": True, "bee_wasp": 1, "cat": 2}}, "'ant': True"),
        (NAMES, MODEL, {"class_map": {}, "same_order": True}, "not both"),
    ],
)
def test_classes_that_are_not_certain_are_refused(source: Any, model: Any, options: Any, said: str) -> None:
    num_classes = 2 if source == ("crane",) else 3
    with pytest.raises(ConfigError, match=said):
        match_classes(source, model, num_classes, **options)


def test_a_map_leaves_classes_out_and_joins_them(image_folder: Path) -> None:
    _, labels = match_classes(NAMES, MODEL, 3, {"ant": None, "1": "n1", "cat": "Ant"})
    assert labels == {0: None, 1: 0, 2: 0}
    images = relabel(open_source(str(image_folder), SourceOptions()).images, labels)
    assert images.num_images == 8 and set(images.labels or ()) == {0}
    items = [record.read() for record in images.records(0, 0)]
    assert [label for _, label in items] == [0] * 8
    assert np.asarray(items[0][0].convert("L")).tobytes() == np.asarray(TinyImages()[1][0]).tobytes()


def test_labels_nobody_knows_are_refused() -> None:
    class Labelled(TinyImages):
        targets = [0, 1, 2, 3] * 3

    with pytest.raises(ConfigError, match="image 3 has label 3"):
        relabel(as_images(Labelled()), {0: 0, 1: 1, 2: 2})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "cannot be read as JSON"),
        ('["a", "a"]', "twice"),
        ('{"0": "a", "2": "b"}', "0 to 1, each once"),
        ("[1]", "list of names"),
        ('{"names": ["a"], "wnids": []}', "wnids"),
        ("3", "list of names"),
    ],
)
def test_class_lists_that_are_none_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_class_list(str(tmp_path / "list.json"))


def test_class_lists_and_maps_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    for values in (["a", "b"], {"1": "b", "0": "a"}, {"names": ["a", "b"], "wnids": ["n1", "n2"]}):
        path.write_text(json.dumps(values))
        assert read_class_list(str(path)).names == ("a", "b")
    assert len(read_class_list("imagenet").names) == 1000
    with pytest.raises(ConfigError, match=r"accepted:.*cifar10"):
        read_class_list("cifar11")
    with pytest.raises(ConfigError, match="no JSON object"):
        path.write_text("[]")
        read_class_map(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_class_map(tmp_path / "missing.json")


def test_images_of_sixteen_bits_are_not_clipped(image_folder: Path) -> None:
    Image.fromarray(np.full((14, 14), 300, dtype=np.uint16)).save(image_folder / "ant" / "00.png")
    source = relabel(open_source(str(image_folder), SourceOptions()).images, {0: 0, 1: 1, 2: 2})
    with pytest.raises(ValueError, match=r"ant/00\.png.*8 bits per channel"):
        build_artifact(source, tiny_model(), image_folder / "out", tiny_info(), image_folder.parent / "work")
