"""Sets that are in use: by whom and until when, and that removal takes nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from d3hr_datasets.cache.epoch_sets import MARK, remove_epoch_sets
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.inspection import list_cached_sets
from d3hr_datasets.cache.locks import LOCKS
from d3hr_datasets.cache.prune import plan_prune, prune_cache
from d3hr_datasets.cache.uses import SetUse, unused
from d3hr_datasets.errors import CacheError
from tests.cli.test_cli import d3hr
from tests.support.image_groups import IPC, Maker, left_over


def _epoch_set(root: Path, epoch: int, mark: object = None) -> ImageCache:
    settings = {MARK: mark or {"seed": 0, "epoch": epoch}}
    cache = ImageCache(root, _name(epoch), ["a", "b"], IPC, settings=settings)
    for label in (0, 1):
        cache.ensure(label, Maker(label))
    return cache


def _name(epoch: int) -> str:
    return f"set-epoch{epoch}-digest"


def _is_unused(root: Path, name: str) -> bool:
    with unused(root, name) as free:
        return free


def test_a_set_is_in_use_until_the_last_use_has_ended(tmp_path: Path) -> None:
    uses = [SetUse(tmp_path, "set") for _ in range(2)]
    assert not _is_unused(tmp_path, "set") and _is_unused(tmp_path, "other")
    uses[0].end()
    uses[0].end()
    assert not _is_unused(tmp_path, "set") and left_over(tmp_path) == [tmp_path / LOCKS / "set.use"]
    del uses
    assert _is_unused(tmp_path, "set") and left_over(tmp_path) == []


def test_who_dies_uses_nothing_and_a_fork_ends_nothing_of_its_parent(tmp_path: Path) -> None:
    own = SetUse(tmp_path, "own")
    child = os.fork()
    if child == 0:
        own.end()
        other = SetUse(tmp_path, "other")
        os._exit(0 if other else 1)  # as if it were killed: nothing is ended
    assert os.waitpid(child, 0)[1] == 0
    assert not _is_unused(tmp_path, "own")
    assert left_over(tmp_path) == [tmp_path / LOCKS / "other.use", tmp_path / LOCKS / "own.use"]
    assert prune_cache(tmp_path).removed == (tmp_path / LOCKS / "other.use",)
    own.end()
    assert left_over(tmp_path) == []


def test_what_is_no_lock_file_is_left_alone(tmp_path: Path) -> None:
    cache = _epoch_set(tmp_path, 1)
    (tmp_path / "mine").write_text("")
    (tmp_path / LOCKS / f"{_name(1)}.use").symlink_to(tmp_path / "mine")
    with pytest.raises(CacheError, match="is no lock file of the cache"):
        SetUse(tmp_path, _name(1))
    remove_epoch_sets(tmp_path, _name, ())
    assert plan_prune(tmp_path).removals == () and cache.is_complete(0)
    (tmp_path / LOCKS / f"{_name(1)}.use").unlink()
    (tmp_path / LOCKS / f"{_name(1)}.use").write_text("a text")
    remove_epoch_sets(tmp_path, _name, ())
    assert cache.is_complete(0) and (tmp_path / LOCKS / f"{_name(1)}.use").read_text() == "a text"


def test_only_marked_sets_of_the_names_go(tmp_path: Path) -> None:
    gone, kept = _epoch_set(tmp_path, 1), _epoch_set(tmp_path, 2)
    strange = [
        _epoch_set(tmp_path, epoch, mark)
        for epoch, mark in ((3, {"epoch": "3"}), (4, "x"), (5, {"epoch": 6}))
    ]
    plain = ImageCache(tmp_path, _name(7), ["a"], IPC)
    plain.ensure(0, Maker(0))
    changed = _epoch_set(tmp_path, 8)
    (changed.folder / "set.json").write_text("{}")
    written = _epoch_set(tmp_path, 9)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(written.path(1, 0).parent, tmp_path / "elsewhere" / "group")
    written.path(1, 0).parent.symlink_to(tmp_path / "elsewhere" / "group")
    remove_epoch_sets(tmp_path, _name, {2})
    assert not gone.folder.exists() and kept.is_complete(0)
    assert all(cache.is_complete(label) for cache in strange for label in (0, 1))
    assert plain.is_complete(0) and changed.path(0, 0).exists()
    assert written.path(1, 0).parent.is_symlink() and len(list((tmp_path / "elsewhere/group").iterdir())) == 4


@pytest.mark.parametrize("named", [True, False])
def test_commands_show_and_remove_what_nobody_uses(named: bool, tmp_path: Path) -> None:
    for epoch in (1, 2):
        _epoch_set(tmp_path, epoch)
    assert [found.epoch for found in list_cached_sets(tmp_path)] == [1, 2]
    listed = d3hr("cache", "list", "--root", tmp_path).stdout.splitlines()
    assert [line.rpartition(", ")[2] for line in listed] == ["for epoch 1", "for epoch 2"]
    use = SetUse(tmp_path, _name(2))
    names = [_name(1)] if named else []
    result = d3hr("cache", "prune", *names, "--yes", "--root", tmp_path)
    assert result.exit_code == 0 and str(tmp_path / _name(1)) in result.stdout
    assert [found.epoch for found in list_cached_sets(tmp_path)] == [2]
    refused = d3hr("cache", "prune", _name(2), "--yes", "--root", tmp_path)
    assert refused.exit_code == 1 and "another process trains on it" in refused.stderr
    plan = plan_prune(tmp_path)
    use.end()
    assert plan.removals == () and prune_cache(tmp_path).removed == (tmp_path / _name(2),)
    assert left_over(tmp_path) == []


def test_a_set_that_is_used_meanwhile_is_not_removed(tmp_path: Path) -> None:
    cache = _epoch_set(tmp_path, 1)
    plan = plan_prune(tmp_path)
    use = SetUse(tmp_path, _name(1))
    assert len(plan.removals) == 1 and plan.execute().removed == () and cache.is_complete(0)
    use.end()
    assert plan.execute().removed == (cache.folder,)
