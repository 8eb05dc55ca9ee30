"""A cache in a folder that holds other things: these are never listed, verified, followed or removed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from d3hr_datasets import D3HRDataset
from d3hr_datasets.cache.files import MANIFEST, MAX_IMAGE_BYTES, SETTINGS
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.inspection import list_cached_sets, verify_cached_set
from d3hr_datasets.cache.leftovers import LEFTOVER_AGE
from d3hr_datasets.cache.locks import LOCKS, PARTIAL
from d3hr_datasets.cache.prune import plan_prune, prune_cache
from d3hr_datasets.cli.app import app
from d3hr_datasets.dataset.export import export_image_folder
from d3hr_datasets.errors import CacheError
from tests.support.tampering import flip_byte
from tests.support.workers import file_digests

IPC = 2
HEX = "0" * 32


def _images() -> list[Image.Image]:
    return [Image.new("L", (5, 5), 100 + position) for position in range(IPC)]


def _cache(root: Path, name: str = "set") -> ImageCache:
    cache = ImageCache(root, name, ["a", "b"], IPC)
    for label in (0, 1):
        cache.ensure(label, _images)
    return cache


def _user_images(folder: Path) -> Path:
    """Lay a user's images down as the cache lays its own, with a damaged one among them."""
    for label in range(3):
        (folder / str(label)).mkdir(parents=True)
        for index in range(2):
            _images()[0].save(folder / str(label) / f"{index:05d}.png")
    (folder / "0" / "00002.png").write_bytes(b"not an image")
    return folder


def _snapshot(folder: Path) -> dict[str, object]:
    """Return what is below a folder: types, bytes, and where links lead."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        link = path.readlink() if path.is_symlink() else None
        data = path.read_bytes() if path.is_file() and link is None else None
        found[str(path.relative_to(folder))] = (oct(state.st_mode), state.st_ino, link, data)
    return found


def _use_all(root: Path) -> None:
    """List, verify and prune everything that can be."""
    for found in list_cached_sets(root):
        verify_cached_set(root, found.name)
    prune_cache(root, damaged=True)


def test_a_users_images_are_no_set(tmp_path: Path) -> None:
    _user_images(tmp_path / "digits")
    _user_images(tmp_path / "named" / "000-a")
    before = _snapshot(tmp_path)
    assert list_cached_sets(tmp_path) == []
    assert prune_cache(tmp_path, damaged=True).removed == ()
    for call in (verify_cached_set, lambda root, name: prune_cache(root, [name])):
        with pytest.raises(CacheError, match="has no set 'digits'"):
            call(tmp_path, "digits")
    assert _snapshot(tmp_path) == before


def test_an_export_is_no_set(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path / "cache", ipc=1, device="cpu")
    export_image_folder(dataset, tmp_path / "data" / "export", progress=False)
    flip_byte(tmp_path / "data" / "export" / "000-ant" / "00000.png")
    before = _snapshot(tmp_path / "data")
    _use_all(tmp_path / "data")
    assert _snapshot(tmp_path / "data") == before


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
    folder = _user_images(tmp_path / "digits")
    (folder / SETTINGS).write_bytes(data)
    (folder / "0" / MANIFEST).write_bytes(data)
    (folder / "000-a").mkdir()
    (folder / "000-a" / MANIFEST).write_bytes(b'{"sha256": []}')
    before = _snapshot(tmp_path)
    assert list_cached_sets(tmp_path) == []
    _use_all(tmp_path)
    assert _snapshot(tmp_path) == before


def test_deep_json_in_a_set_is_damage(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    (cache.folder / SETTINGS).write_bytes(b"[" * 100_000)
    cache.path(0, 0).with_name(MANIFEST).write_bytes(b"[" * 100_000)
    assert cache.folder / SETTINGS in verify_cached_set(tmp_path, "set")
    cache.ensure(0, _images)
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
    cache = _cache(tmp_path)
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
            reader.ensure(0, _images)
            reader.check([0])
        assert path.lstat().st_mode == mode
    else:
        reader.ensure(0, _images)
        reader.check([0])
        assert verify_cached_set(tmp_path, "set") == []
    assert time.monotonic() - begin < 5


def test_pruning_leaves_what_is_not_the_sets(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    mine = [
        cache.folder / "notes.txt",
        cache.folder / "pictures" / "00000.png",
        cache.folder / "002-c" / "00000.png",
        cache.folder / "00-a" / "00000.png",
        cache.path(0, IPC),
        cache.path(0, 0).with_name("cat.png"),
        cache.path(1, 0).with_name("0.png"),
        cache.path(1, 0).parent / "deeper" / "00000.png",
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    os.mkfifo(cache.path(1, 1).with_name("00001.jpg"))
    flip_byte(cache.path(0, 1))
    assert prune_cache(tmp_path, damaged=True).removed == (cache.path(0, 0).parent,)
    assert not cache.path(0, 0).exists() and cache.is_complete(1)
    assert prune_cache(tmp_path, ["set"]).removed == (cache.folder,)
    left = {path for path in cache.folder.rglob("*") if not path.is_dir()}
    assert left == {*mine, cache.path(1, 1).with_name("00001.jpg")}
    assert all(path.read_bytes() == b"mine" for path in mine)


def test_a_linked_set_is_unlinked_and_not_emptied(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    _cache(elsewhere)
    root.mkdir()
    (root / "set").symlink_to(elsewhere / "set")
    (root / "pictures").symlink_to(_user_images(tmp_path / "digits"))
    flip_byte(elsewhere / "set" / "000-a" / "00000.png")
    before = _snapshot(elsewhere), _snapshot(tmp_path / "digits")
    assert list_cached_sets(root) == [] and prune_cache(root, damaged=True).removed == ()
    with pytest.raises(CacheError, match="has no set 'pictures'"):
        prune_cache(root, ["pictures"])
    reader = ImageCache(root, "set", ["a", "b"], IPC)
    assert reader.read(1, 0) is None and not reader.is_complete(1)
    with pytest.raises(CacheError, match="is a link"):
        reader.ensure(0, _images)
    assert prune_cache(root, ["set"]).removed == (root / "set",)
    assert not (root / "set").is_symlink() and (root / "pictures").is_symlink()
    assert (_snapshot(elsewhere), _snapshot(tmp_path / "digits")) == before


def test_links_within_a_set_are_not_followed(tmp_path: Path) -> None:
    root, mine = tmp_path / "root", _user_images(tmp_path / "digits")
    cache = _cache(root)
    shutil.rmtree(cache.path(1, 0).parent)
    cache.path(1, 0).parent.symlink_to(mine / "1")
    cache.path(0, 1).unlink()
    cache.path(0, 1).symlink_to(mine / "1" / "00001.png")
    before = _snapshot(mine)
    assert verify_cached_set(root, "set") == [cache.path(0, 1)]
    with pytest.raises(CacheError, match="001-b is a link"):
        cache.ensure(1, _images)
    cache.ensure(0, _images)
    assert not cache.path(0, 1).is_symlink() and cache.is_complete(0)
    cache.path(0, 0).unlink()
    cache.path(0, 0).symlink_to(mine / "1" / "00000.png")
    prune_cache(root, damaged=True)
    prune_cache(root, ["set"])
    assert [path.name for path in cache.folder.iterdir()] == ["001-b"]
    assert _snapshot(mine) == before


@pytest.mark.parametrize("name", [PARTIAL, LOCKS])
def test_linked_folders_of_the_cache_are_unlinked(name: str, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    cache = _cache(root)
    shutil.rmtree(root / name, ignore_errors=True)
    elsewhere.mkdir()
    (elsewhere / f"set.000.{socket.gethostname()}.{HEX}").mkdir()
    (elsewhere / "set.000.lock").touch()
    (root / name).symlink_to(elsewhere)
    before = _snapshot(elsewhere)
    flip_byte(cache.path(0, 0))
    with pytest.raises(CacheError, match=f"{name} is a link"):
        cache.ensure(0, _images)
    assert set(prune_cache(root, damaged=True).removed) == {root / name, cache.path(0, 0).parent}
    cache.ensure(0, _images)
    assert _snapshot(elsewhere) == before and cache.is_complete(0)


def test_strange_entries_beside_leftovers_and_locks_stay(tmp_path: Path) -> None:
    root, mine = tmp_path / "root", _user_images(tmp_path / "digits")
    (root / LOCKS).mkdir(parents=True)
    (root / PARTIAL).mkdir()
    host, long_ago = socket.gethostname(), time.time() - LEFTOVER_AGE - 60
    dead = root / PARTIAL / f"set.000.{host}.{HEX}"
    dead.mkdir()
    for name in ("00000.png", "notes.txt"):
        (dead / name).write_bytes(b"12")
    (root / PARTIAL / f"set.001.{host}.{HEX}").symlink_to(mine)
    (root / PARTIAL / "mine").mkdir()
    (root / PARTIAL / "mine" / "00000.png").touch()
    os.utime(root / PARTIAL / "mine", (long_ago, long_ago))
    (root / PARTIAL / "linked").symlink_to(mine)
    (root / LOCKS / "set.002.lock").symlink_to(mine / "0" / "00000.png")
    (root / LOCKS / "set.003.lock").write_text("mine")
    (root / LOCKS / "poetry.lock").touch()
    os.mkfifo(root / LOCKS / "set.004.lock")
    before = _snapshot(mine)
    assert set(prune_cache(root).removed) == {
        dead,
        root / PARTIAL / f"set.001.{host}.{HEX}",
        root / LOCKS / "set.002.lock",
    }
    assert _snapshot(mine) == before
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or path.is_file()}
    assert left == {
        f"{PARTIAL}/{dead.name}/notes.txt",
        f"{PARTIAL}/mine/00000.png",
        f"{PARTIAL}/linked",
        f"{LOCKS}/set.003.lock",
        f"{LOCKS}/poetry.lock",
    }
    cache = ImageCache(root, "set", list("abcde"), IPC)
    for label in (3, 4):
        with pytest.raises(CacheError, match="no lock file"):
            cache.ensure(label, _images)
    assert (root / LOCKS / "set.003.lock").read_text() == "mine"


def test_a_plan_removes_no_more_than_it_says(tmp_path: Path) -> None:
    root, mine = tmp_path / "root", _user_images(tmp_path / "digits")
    cache, other = _cache(root), _cache(root, "other")
    flip_byte(cache.path(0, 0))
    flip_byte(cache.path(1, 0))
    plan = plan_prune(root, ["other"], damaged=True)
    assert [removal.path for removal in plan.removals] == [
        other.folder,
        cache.path(0, 0).parent,
        cache.path(1, 0).parent,
    ]
    cache.ensure(0, _images)  # mended meanwhile
    shutil.rmtree(other.path(0, 0).parent)
    other.path(0, 0).parent.symlink_to(mine / "0")  # as who answers later may find it
    cache.path(1, 0).write_bytes(b"changed meanwhile")
    before = _snapshot(mine)
    report = plan.execute()
    assert cache.is_complete(0) and cache.path(1, 0).exists() and not cache.path(1, 1).exists()
    assert _snapshot(mine) == before and report.num_bytes < plan.num_bytes
    assert [path.name for path in other.folder.iterdir()] == ["000-a"]


def test_pruning_asks_where_a_terminal_is_attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cache(tmp_path)
    before = file_digests(tmp_path / "set")
    size = sum(path.stat().st_size for path in (tmp_path / "set").rglob("*.*"))
    arguments = ["cache", "prune", "set", "--root", str(tmp_path)]
    monkeypatch.setattr("d3hr_datasets.cli.cache.has_terminal", lambda: True)
    for answer in ("n\n", "\n", ""):  # which click's runner prints to stdout
        result = CliRunner().invoke(app, arguments, input=answer)
        assert result.exit_code == 1 and result.stdout.startswith(f"{tmp_path / 'set'}  {size} bytes\n")
        assert "Remove these" in result.stderr and file_digests(tmp_path / "set") == before
    result = CliRunner().invoke(app, [*arguments, "--json"], input="y\n")
    assert result.exit_code == 0 and str(tmp_path / "set") in result.stderr
    assert json.loads(result.stdout[result.stdout.index("{") :]) == {
        "removed": [str(tmp_path / "set")],
        "num_bytes": size,
    }
    _cache(tmp_path)
    result = CliRunner().invoke(app, [*arguments, "--yes"], input="")
    assert result.exit_code == 0 and "Remove these" not in result.stderr and not (tmp_path / "set").exists()
    result = CliRunner().invoke(app, arguments[:2] + arguments[3:], input="")  # nothing to ask about
    assert (result.exit_code, result.stdout) == (0, "") and "Remove these" not in result.stderr


def test_pruning_says_what_stays(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    (cache.folder / "notes.txt").touch()
    result = CliRunner().invoke(app, ["cache", "prune", "set", "--root", str(tmp_path)])
    assert result.exit_code == 0 and f"{cache.folder} stays: there is something else in it" in result.stderr
