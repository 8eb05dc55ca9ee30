"""A damaged group is not served: it is made again, and what is not the cache's stays."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from d3hr_datasets.cache.files import MANIFEST
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.inspection import verify_cached_set
from d3hr_datasets.cache.prune import prune_cache
from d3hr_datasets.errors import CacheError
from tests.support.image_groups import IPC, Maker, complete_set, dataset_in, never
from tests.support.tampering import flip_byte, truncate
from tests.support.workers import file_digests


@pytest.mark.parametrize("position", [0, 20, 45, -1])
def test_flipped_byte_is_not_served(position: int, tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    for label in (0, 1):
        cache.ensure(label, Maker(label))
    flip_byte(cache.path(1, 2), position)
    for reader in (cache, ImageCache(tmp_path, "set", ["a", "b"], IPC)):
        assert reader.read(1, 2) is None
        assert not reader.is_complete(1)
        assert reader.is_complete(0)
    maker = Maker(1)
    cache.ensure(1, maker)
    image = cache.read(1, 2)
    assert maker.calls == 1
    assert image is not None and image.getpixel((0, 0)) == 22


def test_other_image_in_its_place_is_not_served(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    cache.ensure(0, Maker(0))
    shutil.copyfile(cache.path(0, 1), cache.path(0, 0))
    assert cache.read(0, 0) is None


def _write_manifest(data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / MANIFEST).write_bytes(data)


def _lengthen_manifest(folder: Path) -> None:
    checksums = json.loads((folder / MANIFEST).read_text())["sha256"]
    (folder / MANIFEST).write_text(json.dumps({"sha256": [*checksums, checksums[0]]}))


def _shorten_manifest(folder: Path) -> None:
    checksums = json.loads((folder / MANIFEST).read_text())["sha256"]
    (folder / MANIFEST).write_text(json.dumps({"sha256": checksums[:-1]}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped image": lambda folder: flip_byte(folder / "00002.png", 50),
    "truncated image": lambda folder: truncate(folder / "00002.png"),
    "empty image": lambda folder: truncate(folder / "00002.png", 0),
    "deleted image": lambda folder: (folder / "00002.png").unlink(),
    "deleted manifest": lambda folder: (folder / MANIFEST).unlink(),
    "truncated manifest": lambda folder: truncate(folder / MANIFEST),
    "flipped manifest": lambda folder: flip_byte(folder / MANIFEST, 20),
    "empty manifest": _write_manifest(b""),
    "binary manifest": _write_manifest(b"\xff\xfe\x00\x80"),
    "manifest without checksums": _write_manifest(b"{}"),
    "manifest that is a list": _write_manifest(b"[]"),
    "manifest that is null": _write_manifest(b"null"),
    "manifest of another type": _write_manifest(b'{"sha256": 3}'),
    "manifest of a text": _write_manifest(b'{"sha256": "abc"}'),
    "manifest of an object": _write_manifest(b'{"sha256": {"0": "abc"}}'),
    "manifest of nothing": _write_manifest(b'{"sha256": []}'),
    "manifest of numbers": _write_manifest(b'{"sha256": [1, 2, 3]}'),
    "manifest of fewer images": _shorten_manifest,
    "manifest of more images": _lengthen_manifest,
    "deleted group": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_group_is_made_again_by_reading(
    damage: Callable[[Path], object], generated: Path, tiny_artifact: Path
) -> None:
    dataset = dataset_in(tiny_artifact, generated)
    before = file_digests(dataset.image_folder)
    pixels = [dataset[index][0].tobytes() for index in range(len(dataset))]
    damage(dataset.image_folder / dataset.cache.class_folders[1])
    for reader in (dataset, dataset_in(tiny_artifact, generated)):
        assert reader[2 * IPC - 1][0].tobytes() == pixels[2 * IPC - 1]
    assert file_digests(dataset.image_folder) == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_group_is_made_again_by_materializing(
    damage: Callable[[Path], object], generated: Path, tiny_artifact: Path
) -> None:
    dataset = dataset_in(tiny_artifact, generated)
    before = file_digests(dataset.image_folder)
    damage(dataset.image_folder / dataset.cache.class_folders[1])
    dataset.materialize(progress=False)
    assert file_digests(dataset.image_folder) == before


def test_additional_image_stays_and_materializing_names_it(generated: Path, tiny_artifact: Path) -> None:
    dataset = dataset_in(tiny_artifact, generated)
    additional = dataset.cache.path(1, IPC)
    shutil.copyfile(dataset.cache.path(1, 0), additional)
    before = file_digests(dataset.image_folder)
    flip_byte(dataset.cache.path(1, 1))
    assert dataset[IPC + 1][1] == 1  # reading needs the set's own images alone
    with pytest.raises(CacheError, match=f"{additional.name}.*move them elsewhere"):
        dataset.materialize(progress=False)
    assert file_digests(dataset.image_folder) == before
    additional.unlink()
    dataset.materialize(progress=False)


def test_stray_file_is_no_damage_and_stays(tmp_path: Path) -> None:
    cache = complete_set(tmp_path)
    stray = cache.path(0, 0).with_name(".DS_Store")
    stray.write_bytes(b"finder")
    assert cache.is_complete(0) and verify_cached_set(tmp_path, "set") == []
    cache.ensure(0, never)
    flip_byte(cache.path(0, 1))
    cache.ensure(0, Maker(0))
    assert cache.is_complete(0) and stray.read_bytes() == b"finder"
    flip_byte(cache.path(0, 1))
    prune_cache(tmp_path, damaged=True)
    assert list(stray.parent.iterdir()) == [stray]
    cache.ensure(0, Maker(0))
    assert cache.is_complete(0) and stray.read_bytes() == b"finder"


def test_mending_says_what_it_replaces_and_leaves_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = complete_set(tmp_path)
    sound = {path: path.stat() for path in (cache.path(0, 0), cache.path(0, 2))}
    flip_byte(cache.path(0, 1))
    additional = cache.path(0, IPC)
    additional.write_bytes(b"mine")
    with caplog.at_level(logging.WARNING, "d3hr_datasets"):
        cache.ensure(0, Maker(0))
    assert str(cache.path(0, 1)) in caplog.text and str(additional) in caplog.text
    assert additional.read_bytes() == b"mine"
    assert {path: path.stat().st_ino for path in sound} == {path: s.st_ino for path, s in sound.items()}
