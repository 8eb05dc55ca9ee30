"""Names of chunk files, and what they say of their images: a build goes on only where these stay as they are.

What is computed without `datasets` stands here as it was found; fingerprints of `datasets` and sizes of
Parquet files differ between its versions, so of these the way to the name stands here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pytest
from safetensors import safe_open
from torchvision.datasets import FashionMNIST, ImageFolder

from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.classes.matching import LabelMap
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.sources.opening import SourceOptions, open_source
from d3hr_datasets.sources.records import ImageRecord
from d3hr_datasets.sources.relabel import relabel
from tests.support.tiny import TinyImages, tiny_info, tiny_model

FINGERPRINT = "0123456789abcdef"
SAME: LabelMap = {0: 0, 1: 1, 2: 2}
# Of the two chunks of `folder`: SHA-256 of names, sizes and times of change.
FILES = (
    "919bc38b7e8f511d3581e95177553228f7352ff50b3875df93b06580c7c09004",
    "910bc29215c7fb85b9f6e7df77148ad9fd13402b11ac8cbfde100fc4a518ad9f",
)


@pytest.fixture(autouse=True)
def _same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LatentDiffusion, "inversion_fingerprint", FINGERPRINT)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def chunks(images: Any, tmp_path: Path, source: dict[str, Any], **changes: Any) -> dict[str, str]:
    """Build and return what each file of a chunk says of its images, by its name."""
    info = tiny_info(dtype="float32", source=source, **changes)
    build_artifact(
        images, tiny_model(), tmp_path / "artifact", info, tmp_path / "work", chunk_size=6, progress=False
    )
    found = {}
    for path in sorted((tmp_path / "work").glob("*[0-9].safetensors")):
        with safe_open(path, framework="pt") as file:
            found[path.name] = json.loads(file.metadata()["d3hr"])["identity"]
    return found


def names(first: str) -> list[str]:
    """Return the names of two chunks of images with random access."""
    return [f"{first}-000000000.safetensors", f"{first}-000000006.safetensors"]


def key(source: dict[str, Any], size: int, labels: list[int] | None, identity: str) -> str:
    """Return the first part of the names of a build of `tiny_info`."""
    settings = [
        FINGERPRINT,
        tiny_info().inversion.to_dict(),
        [14, 1, "L", 3, (3, 4, 4)],
        [source, size, labels],
        identity,
        6,
        1,
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of three classes of four images that are the same bytes, and as old, everywhere."""
    for index in range(12):
        path = tmp_path / "images" / "abc"[index // 4] / f"{index:02d}.pgm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P5 14 14 255\n" + bytes([17 * index + step % 5 for step in range(196)]))
        os.utime(path, ns=(index, 10**18 + index))
    return tmp_path / "images"


def test_of_an_image_folder(folder: Path, tmp_path: Path) -> None:
    opened = open_source(str(folder))
    found = chunks(relabel(opened.images, SAME), tmp_path, opened.description)
    assert found == dict(zip(names("5ac713357c4e6bd6"), FILES, strict=True))


def test_of_an_image_folder_with_a_class_left_out(folder: Path, tmp_path: Path) -> None:
    for index in range(12, 16):
        path = folder / "aa" / f"{index}.pgm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"P5 14 14 255\n" + bytes(196))
    opened = open_source(str(folder))
    labels: LabelMap = {0: 0, 1: None, 2: 1, 3: 2}
    found = chunks(relabel(opened.images, labels), tmp_path, opened.description)
    assert found == dict(zip(names("156240be0a978dcd"), FILES, strict=True))


def test_of_torchvisions_image_folder(folder: Path, tmp_path: Path) -> None:
    found = chunks(ImageFolder(str(folder)), tmp_path, {"name": "own"}, num_modes=2)
    assert list(found) == names("8fd2a26c27af11ba")
    assert [identity[:64] for identity in found.values()] == list(FILES)
    (centroids,) = {identity[64:] for identity in found.values()}
    assert len(centroids) == 64


@pytest.fixture
def fashion_mnist(tmp_path: Path) -> Path:
    """Return the root of a Fashion-MNIST of twelve images."""
    raw = tmp_path / "root" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = bytes((31 * place + place // 784) % 256 for place in range(12 * 784))
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 12, 28, 28) + pixels)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 12) + bytes([0, 1, 2] * 4))
    return tmp_path / "root"


def test_of_torchvision_with_pixels_in_memory(fashion_mnist: Path, tmp_path: Path) -> None:
    opened = open_source(f"torchvision:FashionMNIST:{fashion_mnist}")
    found = chunks(relabel(opened.images, SAME), tmp_path, opened.description)
    assert found == dict.fromkeys(names("71b35470c6404b48"), "")


def test_of_a_torchvision_data_set_as_it_is(fashion_mnist: Path, tmp_path: Path) -> None:
    found = chunks(FashionMNIST(str(fashion_mnist)), tmp_path, {"name": "own"})
    assert found == dict.fromkeys(names(key({"name": "own"}, 12, [0, 1, 2] * 4, "")), "")


def test_of_torchvision_with_samples(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "root" / "eurosat").mkdir(parents=True)
    folder.rename(tmp_path / "root" / "eurosat" / "2750")
    opened = open_source(f"torchvision:EuroSAT:{tmp_path / 'root'}")
    found = chunks(relabel(opened.images, SAME), tmp_path, opened.description)
    assert found == {
        "b447228dec83a4cf-000000000.safetensors": (
            "952f58bc80df39e41ea8416a9ecc105173e5be4a7a8b7923cb606f16630560e9"
        ),
        "b447228dec83a4cf-000000006.safetensors": (
            "0ca82e6a0b507e5a21778fa4cd077221ac3a741765d1265134f9009e6f71b4d6"
        ),
    }


def test_of_torchvision_with_labels_of_another_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "root" / "food-101" / "meta").mkdir(parents=True)
    folder.rename(tmp_path / "root" / "food-101" / "images")
    listed: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    for path in sorted((tmp_path / "root").rglob("*.pgm")):
        listed[path.parent.name].append(f"{path.parent.name}/{path.stem}")
        path.rename(path.with_suffix(".jpg"))
    (tmp_path / "root" / "food-101" / "meta" / "train.json").write_text(json.dumps(listed))
    opened = open_source(f"torchvision:Food101:{tmp_path / 'root'}")
    found = chunks(relabel(opened.images, SAME), tmp_path, opened.description)
    labels, identity = [index // 4 for index in range(12)], " [(0, 0), (1, 1), (2, 2)]"
    assert found == dict.fromkeys(names(key({"name": "Food101", "split": "train"}, 12, labels, identity)), "")


def test_of_own_data_sets(tmp_path: Path) -> None:
    class Known(TinyImages):
        targets = [0, 1, 2] * 4
        identity = "mine, of Monday"

    for images, name in (
        (TinyImages(), key({"name": "own"}, 12, None, "")),
        (Known(), key({"name": "own"}, 12, [0, 1, 2] * 4, "mine, of Monday")),
    ):
        found = chunks(images, tmp_path / name, {"name": "own"})
        assert found == dict.fromkeys(names(name), "")


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Return a Parquet file of the tiny images."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    images, labels = zip(*map(TinyImages().__getitem__, range(12)), strict=True)
    rows = {"image": list(images), "label": list(labels)}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "data.parquet"))
    return tmp_path / "data.parquet"


def test_of_a_parquet_file(parquet: Path, tmp_path: Path) -> None:
    opened = open_source(f"datasets:{parquet}")
    found = chunks(relabel(opened.images, SAME), tmp_path, opened.description)
    rows = datasets.load_dataset("parquet", data_files=str(parquet), split="train")
    rows = rows.select_columns(["image", "label"]).cast_column("image", datasets.Image(decode=False))
    identity = f"{rows._fingerprint} [(0, 0), (1, 1), (2, 2)]"
    name = key({"name": "data.parquet", "split": "train"}, 12, [0, 1, 2] * 4, identity)
    assert found == dict.fromkeys(names(name), "")


def test_of_a_stream(parquet: Path, tmp_path: Path) -> None:
    opened = open_source(f"datasets:{parquet}", SourceOptions(streaming=True))
    found = chunks(relabel(opened.images, SAME), tmp_path, opened.description)
    status = parquet.stat()
    state = hashlib.sha256(f".\0{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    identity = f"image label {state} [(0, 0), (1, 1), (2, 2)]"
    name = key({"name": "data.parquet", "split": "train"}, 1, None, identity)
    assert found == {f"{name}-00000-{start:09d}.safetensors": "" for start in (0, 6, 12)}


def test_of_an_own_stream(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Shards:
        num_shards: int = 2
        num_images: int | None = None

        def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
            for index in range(6 * shard + start, 6 * shard + 6):
                yield ImageRecord(str(index), str(index), partial(TinyImages().__getitem__, index))

    class Told(Shards):
        identity = "shards of Monday"

    for images, identity in ((Shards(), ""), (Told(), "shards of Monday")):
        name = key({"name": "own"}, 2, None, identity)
        found = chunks(images, tmp_path / name, {"name": "own"})
        places = [(shard, start) for shard in (0, 1) for start in (0, 6)]
        assert found == {f"{name}-{shard:05d}-{start:09d}.safetensors": "" for shard, start in places}
