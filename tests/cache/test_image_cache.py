"""The image cache writes groups and reads them back, or says why it cannot."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.errors import CacheError
from tests.support.image_groups import IPC, Maker, dataset_in, left_over, never
from tests.support.tampering import flip_byte


@pytest.mark.parametrize("count", [1, 3, 12])
def test_image_folder_opens_it_in_the_order_of_the_labels(count: int, tmp_path: Path) -> None:
    names = [f"{chr(ord('z') - label)}/{label}" for label in range(count)]  # against the alphabet
    cache = ImageCache(tmp_path, "set", names, IPC)
    for label in reversed(range(count)):
        cache.ensure(label, Maker(label))
    folder = ImageFolder(str(tmp_path / "set"))
    assert folder.classes == cache.class_folders
    assert folder.targets == [label for label in range(count) for _ in range(IPC)]
    for index in range(len(folder)):
        image, target = folder[index]
        assert image.convert("L").getpixel((0, 0)) == 20 * target + index % IPC


def test_order_of_a_thousand_and_one_classes_is_that_of_the_labels(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "set", [f"class {label}" for label in range(1001)], IPC)
    assert sorted(cache.class_folders) == cache.class_folders
    assert len(set(cache.class_folders)) == 1001


@pytest.mark.parametrize("name", ["a/b", "../..", "/etc", "a\\b", "", ".", "größe", "a b, c.d", "CON:"])
def test_any_class_name_makes_one_plain_folder(name: str, tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "set", [name, name], IPC)
    for label in (0, 1):
        cache.ensure(label, Maker(label))
        image = cache.read(label, 2)
        assert image is not None and image.getpixel((0, 0)) == 20 * label + 2
    assert sorted(path.name for path in (tmp_path / "set").glob("*/")) == cache.class_folders
    assert all(
        folder.isascii() and folder.replace("-", "").replace("_", "").isalnum()
        for folder in cache.class_folders
    )


def test_images_come_back_as_they_were(tmp_path: Path) -> None:
    colours = [Image.effect_noise((6, 4), 90).convert("RGB") for _ in range(2)]
    cache = ImageCache(tmp_path, "set", ["a"], 2)
    cache.ensure(0, lambda: colours)
    again = ImageCache(tmp_path, "set", ["a"], 2)
    for index, colour in enumerate(colours):
        found = again.read(0, index)
        assert found is not None and found.mode == "RGB" and found.tobytes() == colour.tobytes()


def test_group_is_made_once(tmp_path: Path) -> None:
    maker = Maker(0)
    for _ in range(3):
        cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
        cache.ensure(0, maker)
    assert maker.calls == 1
    assert cache.is_complete(0) and not cache.is_complete(1)
    assert cache.read(1, 0) is None


def test_reading_what_is_not_there_writes_nothing(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "root", "set", ["a"], IPC)
    assert cache.read(0, 0) is None and not cache.is_complete(0)
    assert not (tmp_path / "root").exists()


def test_sets_of_other_names_are_other_sets(tmp_path: Path) -> None:
    ImageCache(tmp_path, "one", ["a"], IPC).ensure(0, Maker(0))
    assert ImageCache(tmp_path, "two", ["a"], IPC).read(0, 0) is None


def test_nothing_is_left_of_making_and_mending(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    cache.ensure(0, Maker(0))
    assert left_over(tmp_path) == []
    flip_byte(cache.path(0, 0))
    cache.ensure(0, Maker(0))
    assert left_over(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "set").rglob("*.png")) == [
        "00000.png",
        "00001.png",
        "00002.png",
    ]


def test_failed_making_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail() -> Sequence[Image.Image]:
        raise RuntimeError("no memory")

    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    with pytest.raises(RuntimeError, match="no memory"):
        cache.ensure(0, fail)
    assert left_over(tmp_path) == [] and cache.read(0, 0) is None
    cache.ensure(0, Maker(0))
    assert cache.is_complete(0)


@pytest.mark.parametrize("function", ["fsync", "rename"])
def test_full_disk_is_a_cache_error_and_leaves_nothing(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(CacheError, match="No space left"):
            cache.ensure(0, Maker(0))
    assert left_over(tmp_path) == [] and not list(tmp_path.glob("set/*/"))
    assert cache.read(0, 0) is None
    cache.ensure(0, Maker(0))
    assert cache.is_complete(0)


def test_process_killed_while_writing_leaves_no_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", kill)
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # a killed process cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            cache.ensure(0, Maker(0))
    assert cache.read(0, 0) is None and not cache.is_complete(0)
    assert not list(tmp_path.glob("set/*/"))
    cache.ensure(0, Maker(0))
    assert cache.is_complete(0)


def test_root_that_is_a_file_is_a_cache_error(tmp_path: Path, tiny_artifact: Path) -> None:
    root = tmp_path / "root"
    root.write_text("not a folder")
    cache = ImageCache(root, "set", ["a"], IPC)
    with pytest.raises(CacheError, match="root"):
        cache.ensure(0, never)
    dataset = dataset_in(tiny_artifact, root)
    with pytest.raises(CacheError, match="root"):
        dataset[0]
    with pytest.raises(CacheError, match="root"):
        dataset.materialize(progress=False)
    assert root.read_text() == "not a folder"


def test_set_that_is_a_file_is_a_cache_error(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("not a folder")
    with pytest.raises(CacheError, match="set"):
        ImageCache(tmp_path, "set", ["a"], IPC).ensure(0, Maker(0))
    assert left_over(tmp_path) == []


def test_image_that_is_a_folder_is_a_cache_error(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    cache.ensure(0, Maker(0))
    cache.path(0, 0).unlink()
    cache.path(0, 0).mkdir()
    with pytest.raises(CacheError, match=r"00000\.png"):
        cache.read(0, 0)
    with pytest.raises(CacheError, match=r"00000\.png"):
        cache.ensure(0, Maker(0))


def test_checksum_is_computed_once_unless_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counted:
        calls = 0

        def sha256(self, data: bytes) -> object:
            self.calls += 1
            return hashlib.sha256(data)

    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    cache.ensure(0, Maker(0))
    counted = Counted()
    monkeypatch.setattr("d3hr_datasets.cache.image_cache.hashlib", counted)
    assert cache.read(0, 0) is not None and cache.read(0, 0) is not None
    assert counted.calls == 2  # the file is too new for its time of change to tell
    monkeypatch.setattr("d3hr_datasets.cache.image_cache.CLOCK_SECONDS", 0.05)
    time.sleep(0.1)
    assert cache.read(0, 0) is not None and cache.read(0, 0) is not None
    assert counted.calls == 3
    flip_byte(cache.path(0, 0))
    assert cache.read(0, 0) is None
    assert counted.calls == 4
