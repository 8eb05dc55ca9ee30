"""A cache in a folder that holds other things: these are never listed, verified, followed or waited for."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from d3hr_datasets import D3HRDataset
from d3hr_datasets.cache.files import MANIFEST, MAX_IMAGE_BYTES, SETTINGS
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.inspection import list_cached_sets, verify_cached_set
from d3hr_datasets.cache.prune import prune_cache
from d3hr_datasets.dataset.export import export_image_folder
from d3hr_datasets.errors import CacheError
from tests.support.stranger_caches import IPC, small_cache, snapshot, two_images, use_all, user_images
from tests.support.tampering import flip_byte


def test_a_users_images_are_no_set(tmp_path: Path) -> None:
    user_images(tmp_path / "digits")
    user_images(tmp_path / "named" / "000-a")
    before = snapshot(tmp_path)
    assert list_cached_sets(tmp_path) == []
    assert prune_cache(tmp_path, damaged=True).removed == ()
    for call in (verify_cached_set, lambda root, name: prune_cache(root, [name])):
        with pytest.raises(CacheError, match="has no set 'digits'"):
            call(tmp_path, "digits")
    assert snapshot(tmp_path) == before


def test_an_export_is_no_set(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path / "cache", ipc=1, device="cpu")
    export_image_folder(dataset, tmp_path / "data" / "export", progress=False)
    flip_byte(tmp_path / "data" / "export" / "000-ant" / "00000.png")
    before = snapshot(tmp_path / "data")
    use_all(tmp_path / "data")
    assert snapshot(tmp_path / "data") == before


FOREIGN = {
    "empty": b"",
    "other": b'{"name": "Alpha", "cards": []}',
    "unsealed": b'{"format": 1, "ipc": 2, "num_groups": 2, "settings": {}}',
    "another format": b'{"format": 7}',
    "deep": b"[" * 100_000,
    "deep object": b'{"format":' * 100_000,
    "wrong seal": json.dumps({"format": 1, "sha256": "0" * 64}).encode(),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN.keys())
def test_another_set_json_makes_no_set(data: bytes, tmp_path: Path) -> None:
    folder = user_images(tmp_path / "digits")
    (folder / SETTINGS).write_bytes(data)
    (folder / "0" / MANIFEST).write_bytes(data)
    (folder / "000-a").mkdir()
    (folder / "000-a" / MANIFEST).write_bytes(b'{"sha256": []}')
    before = snapshot(tmp_path)
    assert list_cached_sets(tmp_path) == []
    use_all(tmp_path)
    assert snapshot(tmp_path) == before


def test_deep_json_in_a_set_is_damage(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    (cache.folder / SETTINGS).write_bytes(b"[" * 100_000)
    cache.path(0, 0).with_name(MANIFEST).write_bytes(b"[" * 100_000)
    assert cache.folder / SETTINGS in verify_cached_set(tmp_path, "set")
    cache.ensure(0, two_images)
    assert verify_cached_set(tmp_path, "set") == []


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")  # making one takes rights


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)


def _folder(path: Path) -> None:
    path.mkdir()


KINDS: dict[str, Callable[[Path], None]] = {
    "fifo": _fifo,
    "socket": _socket,
    "device": _device,
    "huge": _huge,
    "folder": _folder,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["00001.png", MANIFEST, SETTINGS])
def test_what_is_no_file_is_found_and_never_waited_for(name: str, kind: str, tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    path = cache.folder / name if name == SETTINGS else cache.path(0, 0).with_name(name)
    path.unlink()
    KINDS[kind](path)
    reader, begin = ImageCache(tmp_path, "set", ["a", "b"], IPC), time.monotonic()
    uses: list[Callable[[], object]] = [
        lambda: list_cached_sets(tmp_path),
        lambda: path in verify_cached_set(tmp_path, "set") or pytest.fail("not found"),
        lambda: reader.read(0, 1),
        lambda: reader.is_complete(0),
    ]
    for use in uses:
        try:
            use()
        except CacheError as error:
            assert kind == "folder" and name in str(error)
    mode = path.lstat().st_mode
    if kind in {"fifo", "socket", "folder"}:  # somebody's: generating names it
        with pytest.raises(CacheError, match=name):
            reader.ensure(0, two_images)
            reader.check([0])
        assert path.lstat().st_mode == mode
    else:
        reader.ensure(0, two_images)
        reader.check([0])
        assert verify_cached_set(tmp_path, "set") == []
    assert time.monotonic() - begin < 5
