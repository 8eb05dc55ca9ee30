""""""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from d3hr_datasets import D3HRDataset
from d3hr_datasets.cache import set_file
from d3hr_datasets.cache.files import MANIFEST, SETTINGS
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.inspection import list_cached_sets, verify_cached_set
from d3hr_datasets.cache.leftovers import LEFTOVER_AGE
from d3hr_datasets.cache.locks import LOCKS, PARTIAL, Hold, group_lock
from d3hr_datasets.cache.prune import prune_cache
from d3hr_datasets.errors import CacheError
from tests.support.tampering import flip_byte, truncate
from tests.support.workers import file_digests, generate_together

IPC = 3


def _images(label: int) -> list[Image.Image]:
    """Return images whose pixels tell their label and position."""
    return [Image.new("L", (5, 5), 20 * label + position) for position in range(IPC)]


class Maker:
    """Makes the images of a label, and counts how often."""

    def __init__(self, label: int) -> None:
        self.label = label
        self.calls = 0

    def __call__(self) -> Sequence[Image.Image]:
        self.calls += 1
        return _images(self.label)


def _never() -> Sequence[Image.Image]:
    raise AssertionError("made again")


def _dataset(artifact: Path, root: Path) -> D3HRDataset:
    return D3HRDataset(artifact, root, ipc=IPC, device="cpu")


def _left_over(root: Path) -> list[Path]:
    return sorted(path for kind in (PARTIAL, LOCKS) for path in (root / kind).glob("*"))


def _hold(root: Path, number: str, ready: threading.Event, done: threading.Event) -> None:
    """Hold a group's lock in another thread: to the file system, that is another process."""
    with group_lock(root, "set", number, timeout=0) as hold:
        assert hold is Hold.HELD
        ready.set()
        done.wait(60)


@pytest.fixture
def _held(tmp_path: Path) -> Iterator[None]:
    """Have the lock of group 000 of `tmp_path / "set"` taken."""
    ready, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=_hold, args=(tmp_path, "000", ready, done))
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        done.set()
        thread.join(60)


@pytest.fixture(scope="module")
def _generated(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated")
    _dataset(tiny_artifact, root).materialize(progress=False)
    return root


@pytest.fixture
def generated(_generated: Path, tmp_path: Path) -> Path:
    """Return the root of a cache with all of the tiny artifact's images; the test may change it."""
    return Path(shutil.copytree(_generated, tmp_path / "root"))


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
    dataset = _dataset(tiny_artifact, generated)
    before = file_digests(dataset.image_folder)
    pixels = [dataset[index][0].tobytes() for index in range(len(dataset))]
    damage(dataset.image_folder / dataset.cache.class_folders[1])
    for reader in (dataset, _dataset(tiny_artifact, generated)):
        assert reader[2 * IPC - 1][0].tobytes() == pixels[2 * IPC - 1]
    assert file_digests(dataset.image_folder) == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_group_is_made_again_by_materializing(
    damage: Callable[[Path], object], generated: Path, tiny_artifact: Path
) -> None:
    dataset = _dataset(tiny_artifact, generated)
    before = file_digests(dataset.image_folder)
    damage(dataset.image_folder / dataset.cache.class_folders[1])
    dataset.materialize(progress=False)
    assert file_digests(dataset.image_folder) == before


def test_additional_image_stays_and_materializing_names_it(generated: Path, tiny_artifact: Path) -> None:
    dataset = _dataset(tiny_artifact, generated)
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


def test_nothing_is_left_of_making_and_mending(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    cache.ensure(0, Maker(0))
    assert _left_over(tmp_path) == []
    flip_byte(cache.path(0, 0))
    cache.ensure(0, Maker(0))
    assert _left_over(tmp_path) == []
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
    assert _left_over(tmp_path) == [] and cache.read(0, 0) is None
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
    assert _left_over(tmp_path) == [] and not list(tmp_path.glob("set/*/"))
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
        cache.ensure(0, _never)
    dataset = _dataset(tiny_artifact, root)
    with pytest.raises(CacheError, match="root"):
        dataset[0]
    with pytest.raises(CacheError, match="root"):
        dataset.materialize(progress=False)
    assert root.read_text() == "not a folder"


def test_set_that_is_a_file_is_a_cache_error(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("not a folder")
    with pytest.raises(CacheError, match="set"):
        ImageCache(tmp_path, "set", ["a"], IPC).ensure(0, Maker(0))
    assert _left_over(tmp_path) == []


def test_image_that_is_a_folder_is_a_cache_error(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    cache.ensure(0, Maker(0))
    cache.path(0, 0).unlink()
    cache.path(0, 0).mkdir()
    with pytest.raises(CacheError, match=r"00000\.png"):
        cache.read(0, 0)
    with pytest.raises(CacheError, match=r"00000\.png"):
        cache.ensure(0, Maker(0))


def test_two_at_once_make_a_group_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> Sequence[Image.Image]:
        calls.append(threading.get_ident())
        time.sleep(0.2)
        return _images(0)

    caches = [ImageCache(tmp_path, "set", ["a"], IPC) for _ in range(2)]
    threads = [threading.Thread(target=cache.ensure, args=(0, make)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(calls) == 1
    assert all(cache.is_complete(0) for cache in caches)


def test_two_processes_at_once_give_the_bytes_of_one(
    tmp_path: Path, tiny_artifact: Path, _generated: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.SimpleQueue()
    root = str(tmp_path / "root")
    processes = [
        context.Process(target=generate_together, args=(str(tiny_artifact), root, IPC, barrier, results))
        for _ in range(2)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=600)
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    expected = file_digests(_dataset(tiny_artifact, _generated).image_folder)
    assert len(expected) == 3 * (IPC + 1) + 1  # set.json
    assert results.get() == results.get() == expected
    assert _left_over(tmp_path / "root") == []


def _complete(root: Path, settings: dict[str, object] | None = None) -> ImageCache:
    cache = ImageCache(root, "set", ["a", "b"], IPC, settings=settings)
    for label in (0, 1):
        cache.ensure(label, Maker(label))
    return cache


def test_stray_file_is_no_damage_and_stays(tmp_path: Path) -> None:
    cache = _complete(tmp_path)
    stray = cache.path(0, 0).with_name(".DS_Store")
    stray.write_bytes(b"finder")
    assert cache.is_complete(0) and verify_cached_set(tmp_path, "set") == []
    cache.ensure(0, _never)
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
    cache = _complete(tmp_path)
    sound = {path: path.stat() for path in (cache.path(0, 0), cache.path(0, 2))}
    flip_byte(cache.path(0, 1))
    additional = cache.path(0, IPC)
    additional.write_bytes(b"mine")
    with caplog.at_level(logging.WARNING, "d3hr_datasets"):
        cache.ensure(0, Maker(0))
    assert str(cache.path(0, 1)) in caplog.text and str(additional) in caplog.text
    assert additional.read_bytes() == b"mine"
    assert {path: path.stat().st_ino for path in sound} == {path: s.st_ino for path, s in sound.items()}


def test_class_folder_removed_while_a_loader_reads_is_made_again(
    generated: Path, tiny_artifact: Path
) -> None:
    dataset = _dataset(tiny_artifact, generated)
    expected = [dataset[index][0].tobytes() for index in range(len(dataset))]
    for workers in (0, 1):
        loader = DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=lambda items: items[0][0])
        found: list[bytes] = []
        for image in loader:
            if not found:
                shutil.rmtree(dataset.image_folder / dataset.cache.class_folders[2])
            found.append(image.tobytes())
        assert found == expected


def test_settings_are_written_once_and_listed(tmp_path: Path) -> None:
    settings: dict[str, object] = {"artifact": "tiny", "seed": 3, "decode": {"guidance_scale": 2.0}}
    cache = _complete(tmp_path, settings)
    before = (cache.folder / SETTINGS).stat().st_ino
    (tmp_path / "not a set").mkdir()
    ImageCache(tmp_path, "other", ["a", "b", "c"], IPC).ensure(1, Maker(1))
    flip_byte(cache.path(0, 0))
    _complete(tmp_path, settings)
    assert (cache.folder / SETTINGS).stat().st_ino == before
    other, found = list_cached_sets(tmp_path)
    assert (found.name, found.folder, found.settings) == ("set", tmp_path / "set", settings)
    assert (found.num_groups, found.num_complete_groups, found.num_images) == (2, 2, 2 * IPC)
    assert found.num_bytes == sum(path.stat().st_size for path in cache.folder.rglob("*.*"))
    assert (other.name, other.settings, other.num_groups, other.num_complete_groups) == ("other", {}, 3, 1)
    assert list_cached_sets(tmp_path / "nowhere") == []


def test_listing_does_not_count_groups_that_lack_a_file(tmp_path: Path) -> None:
    cache = _complete(tmp_path)
    cache.path(0, 1).unlink()
    (found,) = list_cached_sets(tmp_path)
    assert (found.num_complete_groups, found.num_images) == (1, 2 * IPC - 1)


def test_set_without_settings_is_still_read_and_gets_them_back(tmp_path: Path) -> None:
    cache = _complete(tmp_path)
    before = (cache.folder / SETTINGS).read_bytes()
    (cache.folder / SETTINGS).unlink()
    assert cache.is_complete(0) and cache.read(1, 0) is not None
    assert list_cached_sets(tmp_path) == []  # nothing says that it is one
    cache.check([0, 1])
    assert (cache.folder / SETTINGS).read_bytes() == before and not _left_over(tmp_path)


def test_set_with_damaged_settings_is_reported_and_not_pruned(tmp_path: Path) -> None:
    cache = _complete(tmp_path)
    before = (cache.folder / SETTINGS).read_bytes()
    flip_byte(cache.folder / SETTINGS)
    flip_byte(cache.path(0, 0))
    (found,) = list_cached_sets(tmp_path)
    assert (found.name, found.settings, found.num_images) == ("set", {}, 2 * IPC)
    assert verify_cached_set(tmp_path, "set") == [cache.folder / SETTINGS, cache.path(0, 0)]
    assert prune_cache(tmp_path, damaged=True).removed == ()
    with pytest.raises(CacheError, match=r"set\.json is damaged.*Generate the set again"):
        prune_cache(tmp_path, ["set"])
    cache.ensure(0, Maker(0))
    assert (cache.folder / SETTINGS).read_bytes() == before and verify_cached_set(tmp_path, "set") == []


def test_set_of_another_format_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    _complete(tmp_path)
    document = {"format": 2, "sha256": hashlib.sha256(b'{"format": 2}').hexdigest()}
    (tmp_path / "set" / SETTINGS).write_text(json.dumps(document, sort_keys=True, indent=2) + "\n")
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    uses: list[Callable[[], object]] = [
        lambda: cache.read(0, 0),
        lambda: cache.is_complete(0),
        lambda: cache.ensure(0, _never),
        lambda: verify_cached_set(tmp_path, "set"),
    ]
    for use in uses:
        with pytest.raises(CacheError, match=r"format 2; .* reads 1.*prune set"):
            use()
    (found,) = list_cached_sets(tmp_path)
    assert (found.settings, found.num_complete_groups, found.num_images) == ({}, 0, 2 * IPC)
    assert prune_cache(tmp_path, damaged=True).removed == ()
    assert prune_cache(tmp_path, ["set"]).removed == (tmp_path / "set",)


def test_flipped_bits_anywhere_in_a_set_are_found(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "set", ["a"], 1, settings={"seed": 1})
    cache.ensure(0, lambda: _images(0)[:1])
    for path in (cache.path(0, 0), cache.path(0, 0).with_name(MANIFEST), cache.folder / SETTINGS):
        data = path.read_bytes()
        for bit in range(0, 8 * len(data), 5):  # each byte, and each place in a byte
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            assert verify_cached_set(tmp_path, "set"), (path, bit)
        path.write_bytes(data + b"\n")
        assert verify_cached_set(tmp_path, "set"), path
        path.write_bytes(data)
    assert verify_cached_set(tmp_path, "set") == []


def test_verifying_names_every_damaged_file(tmp_path: Path) -> None:
    cache = _complete(tmp_path)
    flip_byte(cache.path(0, 0))
    cache.path(0, 1).unlink()
    additional = cache.path(1, IPC).with_suffix(".JPG")
    additional.write_bytes(b"")
    flip_byte(cache.folder / SETTINGS)
    assert verify_cached_set(tmp_path, "set") == [
        cache.folder / SETTINGS,
        cache.path(0, 0),
        cache.path(0, 1),
        additional,
    ]
    assert _left_over(tmp_path) == []
    with pytest.raises(CacheError, match=r"'sat'.*\['set'\]"):
        verify_cached_set(tmp_path, "sat")


def test_pruning_removes_damaged_groups_and_named_sets(tmp_path: Path) -> None:
    cache = _complete(tmp_path)
    other = ImageCache(tmp_path, "other", ["a"], IPC)
    other.ensure(0, Maker(0))
    assert prune_cache(tmp_path).removed == ()
    flip_byte(cache.path(1, 0))
    size = sum(path.stat().st_size for path in cache.path(1, 0).parent.iterdir())
    report = prune_cache(tmp_path, damaged=True)
    assert report.removed == (cache.path(1, 0).parent,) and report.num_bytes == size
    assert cache.is_complete(0) and other.is_complete(0)
    assert cache.read(1, 1) is None and verify_cached_set(tmp_path, "set") == []
    assert prune_cache(tmp_path, ["set"]).removed == (tmp_path / "set",)
    assert not cache.folder.exists() and other.is_complete(0)
    assert _left_over(tmp_path) == []


@pytest.mark.parametrize("name", ["none", "..", "set/000-a", "", ".locks"])
def test_pruning_takes_names_of_sets_only(name: str, tmp_path: Path) -> None:
    cache = _complete(tmp_path / "root")
    with pytest.raises(CacheError, match=r"\['set'\]"):
        prune_cache(tmp_path / "root", ["set", name])
    assert cache.is_complete(0)


@pytest.mark.usefixtures("_held")
def test_pruning_and_verifying_leave_alone_what_another_process_writes(tmp_path: Path) -> None:
    partial = tmp_path / PARTIAL / f"set.000.{socket.gethostname()}.{'0' * 32}"
    partial.mkdir(parents=True)
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    cache.ensure(1, Maker(1))
    cache.path(0, 0).parent.mkdir()
    cache.path(0, 0).write_bytes(b"half")
    assert verify_cached_set(tmp_path, "set") == []
    assert prune_cache(tmp_path, damaged=True).removed == ()
    with pytest.raises(CacheError, match="another process"):
        prune_cache(tmp_path, ["set"])
    assert partial.exists() and cache.is_complete(1)


def _remove_when_looked_at(monkeypatch: pytest.MonkeyPatch, folder: Path, times: int) -> list[Path]:
    """Have a set's folder vanish, as by `prune_cache`, when the writer of a group has just made it."""
    seen: list[Path] = []

    def read_settings(looked_at: Path) -> dict[str, Any] | None:
        if (folder.parent / PARTIAL).exists() and len(seen) < times:
            seen.append(folder)
            folder.rename(folder.parent / f"removed-{len(seen)}")
        return set_file.read_settings(looked_at)

    monkeypatch.setattr("d3hr_datasets.cache.image_cache.read_settings", read_settings)
    return seen


def test_a_set_removed_under_a_writer_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    seen = _remove_when_looked_at(monkeypatch, cache.folder, 2)
    cache.ensure(1, Maker(1))
    assert len(seen) == 2 and verify_cached_set(tmp_path, "set") == [] and not _left_over(tmp_path)
    images = [cache.read(1, index) for index in range(IPC)]
    assert [image and image.tobytes() for image in images] == [image.tobytes() for image in _images(1)]


def test_a_set_that_is_always_removed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    _remove_when_looked_at(monkeypatch, cache.folder, 99)
    with pytest.raises(CacheError, match="cannot be written"):
        cache.ensure(1, Maker(1))
    assert not _left_over(tmp_path)


def test_leftovers_are_pruned_when_their_process_is_dead(tmp_path: Path) -> None:
    _complete(tmp_path)
    partials = tmp_path / PARTIAL
    here, elsewhere, old, unknown = (
        partials / f"set.000.{socket.gethostname()}.{'0' * 32}",
        partials / f"set.000.another-host.{'1' * 32}",
        partials / f"set.001.another-host.{'2' * 32}",
        partials / "4711-abc",
    )
    for path in (here, elsewhere, old, unknown):
        path.mkdir()
        (path / "00000.png").write_bytes(b"12345")
    long_ago = time.time() - LEFTOVER_AGE - 60
    for path in (old, unknown):
        os.utime(path, (long_ago, long_ago))
    lock = tmp_path / LOCKS / "set.000.lock"  # of `here`
    lock.touch()
    report = prune_cache(tmp_path)
    assert set(report.removed) == {here, old, lock} and report.num_bytes == 10
    assert _left_over(tmp_path) == [unknown, elsewhere]


def test_next_writer_of_a_group_removes_its_leftovers(tmp_path: Path) -> None:
    leftover = tmp_path / PARTIAL / f"set.000.{socket.gethostname()}.{'0' * 32}"
    other = tmp_path / PARTIAL / f"set.001.{socket.gethostname()}.{'0' * 32}"
    for path in (leftover, other):
        path.mkdir(parents=True)
    ImageCache(tmp_path, "set", ["a", "b"], IPC).ensure(0, Maker(0))
    assert _left_over(tmp_path) == [other]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_file_system_without_locks_is_written_with_a_warning(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING, "d3hr_datasets"):
        cache = _complete(tmp_path)
    assert "without a lock" in caplog.text
    assert cache.is_complete(0) and _left_over(tmp_path) == []
    foreign = tmp_path / PARTIAL / f"set.000.{socket.gethostname()}.{'0' * 32}"
    foreign.mkdir()
    assert prune_cache(tmp_path).removed == () and foreign.exists()  # nothing proves its process dead
    assert prune_cache(tmp_path, ["set"]).removed == (cache.folder,)


@pytest.mark.usefixtures("_held")
def test_lock_that_is_never_released_does_not_block_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("d3hr_datasets.cache.image_cache.LOCK_TIMEOUT", 0.1)
    cache = ImageCache(tmp_path, "set", ["a"], IPC)
    with caplog.at_level(logging.WARNING, "d3hr_datasets"):
        cache.ensure(0, Maker(0))
    assert "without a lock" in caplog.text and cache.is_complete(0)


def test_writers_without_locks_keep_what_the_first_one_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def make() -> Sequence[Image.Image]:
        _complete(tmp_path)  # meanwhile, another process
        inodes.append(cache.path(0, 0).stat().st_ino)
        return _images(1)  # other bytes, as those of another PNG encoder

    inodes: list[int] = []
    monkeypatch.setattr(fcntl, "flock", refuse)
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    cache.ensure(0, make)
    assert cache.is_complete(0) and cache.path(0, 0).stat().st_ino == inodes[0]
    assert _left_over(tmp_path) == []


def test_complete_group_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    cache.ensure(0, Maker(0))
    system_open = os.open

    def open_to_read(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        return refuse() if flags & (os.O_WRONLY | os.O_RDWR) else system_open(path, flags, *args, **kwargs)

    for name in ("mkdir", "rename", "replace", "unlink"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(os, "open", open_to_read)
    reader = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    reader.ensure(0, _never)
    assert reader.read(0, 0) is not None
    with pytest.raises(CacheError, match=r"materialize\(\)"):
        reader.ensure(1, _never)


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
