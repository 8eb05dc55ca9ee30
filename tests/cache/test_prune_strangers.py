"""A cache in a folder that holds other things: these are never removed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.inspection import list_cached_sets, verify_cached_set
from d3hr_datasets.cache.leftovers import LEFTOVER_AGE
from d3hr_datasets.cache.locks import LOCKS, PARTIAL
from d3hr_datasets.cache.prune import plan_prune, prune_cache
from d3hr_datasets.cli.app import app
from d3hr_datasets.errors import CacheError
from tests.support.stranger_caches import IPC, small_cache, snapshot, two_images, user_images
from tests.support.tampering import flip_byte
from tests.support.workers import file_digests

HEX = "0" * 32


def test_pruning_leaves_what_is_not_the_sets(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
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
    small_cache(elsewhere)
    root.mkdir()
    (root / "set").symlink_to(elsewhere / "set")
    (root / "pictures").symlink_to(user_images(tmp_path / "digits"))
    flip_byte(elsewhere / "set" / "000-a" / "00000.png")
    before = snapshot(elsewhere), snapshot(tmp_path / "digits")
    assert list_cached_sets(root) == [] and prune_cache(root, damaged=True).removed == ()
    with pytest.raises(CacheError, match="has no set 'pictures'"):
        prune_cache(root, ["pictures"])
    reader = ImageCache(root, "set", ["a", "b"], IPC)
    assert reader.read(1, 0) is None and not reader.is_complete(1)
    with pytest.raises(CacheError, match="is a link"):
        reader.ensure(0, two_images)
    assert prune_cache(root, ["set"]).removed == (root / "set",)
    assert not (root / "set").is_symlink() and (root / "pictures").is_symlink()
    assert (snapshot(elsewhere), snapshot(tmp_path / "digits")) == before


def test_links_within_a_set_are_not_followed(tmp_path: Path) -> None:
    root, mine = tmp_path / "root", user_images(tmp_path / "digits")
    cache = small_cache(root)
    shutil.rmtree(cache.path(1, 0).parent)
    cache.path(1, 0).parent.symlink_to(mine / "1")
    cache.path(0, 1).unlink()
    cache.path(0, 1).symlink_to(mine / "1" / "00001.png")
    before = snapshot(mine)
    assert verify_cached_set(root, "set") == [cache.path(0, 1)]
    with pytest.raises(CacheError, match="001-b is a link"):
        cache.ensure(1, two_images)
    cache.ensure(0, two_images)
    assert not cache.path(0, 1).is_symlink() and cache.is_complete(0)
    cache.path(0, 0).unlink()
    cache.path(0, 0).symlink_to(mine / "1" / "00000.png")
    prune_cache(root, damaged=True)
    prune_cache(root, ["set"])
    assert [path.name for path in cache.folder.iterdir()] == ["001-b"]
    assert snapshot(mine) == before


@pytest.mark.parametrize("name", [PARTIAL, LOCKS])
def test_linked_folders_of_the_cache_are_unlinked(name: str, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    cache = small_cache(root)
    shutil.rmtree(root / name, ignore_errors=True)
    elsewhere.mkdir()
    (elsewhere / f"set.000.{socket.gethostname()}.{HEX}").mkdir()
    (elsewhere / "set.000.lock").touch()
    (root / name).symlink_to(elsewhere)
    before = snapshot(elsewhere)
    flip_byte(cache.path(0, 0))
    with pytest.raises(CacheError, match=f"{name} is a link"):
        cache.ensure(0, two_images)
    assert set(prune_cache(root, damaged=True).removed) == {root / name, cache.path(0, 0).parent}
    cache.ensure(0, two_images)
    assert snapshot(elsewhere) == before and cache.is_complete(0)


def test_strange_entries_beside_leftovers_and_locks_stay(tmp_path: Path) -> None:
    root, mine = tmp_path / "root", user_images(tmp_path / "digits")
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
    before = snapshot(mine)
    assert set(prune_cache(root).removed) == {
        dead,
        root / PARTIAL / f"set.001.{host}.{HEX}",
        root / LOCKS / "set.002.lock",
    }
    assert snapshot(mine) == before
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
            cache.ensure(label, two_images)
    assert (root / LOCKS / "set.003.lock").read_text() == "mine"


def test_a_plan_removes_no_more_than_it_says(tmp_path: Path) -> None:
    root, mine = tmp_path / "root", user_images(tmp_path / "digits")
    cache, other = small_cache(root), small_cache(root, "other")
    flip_byte(cache.path(0, 0))
    flip_byte(cache.path(1, 0))
    plan = plan_prune(root, ["other"], damaged=True)
    assert [removal.path for removal in plan.removals] == [
        other.folder,
        cache.path(0, 0).parent,
        cache.path(1, 0).parent,
    ]
    cache.ensure(0, two_images)  # mended meanwhile
    shutil.rmtree(other.path(0, 0).parent)
    other.path(0, 0).parent.symlink_to(mine / "0")  # as who answers later may find it
    cache.path(1, 0).write_bytes(b"changed meanwhile")
    before = snapshot(mine)
    report = plan.execute()
    assert cache.is_complete(0) and cache.path(1, 0).exists() and not cache.path(1, 1).exists()
    assert snapshot(mine) == before and report.num_bytes < plan.num_bytes
    assert [path.name for path in other.folder.iterdir()] == ["000-a"]


def test_pruning_asks_where_a_terminal_is_attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_cache(tmp_path)
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
    small_cache(tmp_path)
    result = CliRunner().invoke(app, [*arguments, "--yes"], input="")
    assert result.exit_code == 0 and "Remove these" not in result.stderr and not (tmp_path / "set").exists()
    result = CliRunner().invoke(app, arguments[:2] + arguments[3:], input="")  # nothing to ask about
    assert (result.exit_code, result.stdout) == (0, "") and "Remove these" not in result.stderr


def test_pruning_says_what_stays(tmp_path: Path) -> None:
    cache = small_cache(tmp_path)
    (cache.folder / "notes.txt").touch()
    result = CliRunner().invoke(app, ["cache", "prune", "set", "--root", str(tmp_path)])
    assert result.exit_code == 0 and f"{cache.folder} stays: there is something else in it" in result.stderr
