"""Removing from the image cache: a plan of the files that go, and its execution, which removes no others.

In: the root of a cache, which may hold anything else, too. Out: freed space. Other processes may read and
generate meanwhile.

What goes is what `owned` tells to be the cache's, file by file, and what `leftovers` tells to be dead;
`removal` removes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from d3hr_datasets.cache.damage import find_damage
from d3hr_datasets.cache.epoch_sets import epoch_of, find_epoch_sets, removal_of
from d3hr_datasets.cache.files import SETTINGS, write_error
from d3hr_datasets.cache.inspection import find_set
from d3hr_datasets.cache.leftovers import find_leftovers
from d3hr_datasets.cache.locks import (
    LOCKS,
    PARTIAL,
    Hold,
    group_lock,
    locked_by,
    may_be_lock,
)
from d3hr_datasets.cache.ownership import OwnSet, as_set, find_sets, group_files
from d3hr_datasets.cache.removal import (
    Part,
    Removal,
    busy,
    entries,
    in_use,
    removal_of_link,
    remove,
    set_parts,
)
from d3hr_datasets.cache.uses import unused, used_by
from d3hr_datasets.classes.folders import folder_number
from d3hr_datasets.errors import CacheError


@dataclasses.dataclass(frozen=True)
class PrunePlan:
    """What `PrunePlan.execute` removes from a cache, and no more.

    Attributes:
        root: Folder of all sets.
        removals: What goes.
    """

    root: Path
    removals: tuple[Removal, ...]

    @property
    def num_bytes(self) -> int:
        """Size of all that goes."""
        return sum(removal.num_bytes for removal in self.removals)

    def execute(self) -> PruneReport:
        """Remove what the plan says, unless it is another by now or another process writes it.

        Raises:
            CacheError: Another process is generating a set that goes, or the cache cannot be written.
        """
        removed: dict[Path, int] = {}
        try:
            for removal in self.removals:
                count, num_bytes = remove(self.root, removal)
                if count:
                    removed[removal.path] = num_bytes
        except OSError as error:
            raise write_error(self.root, error) from error
        return PruneReport(tuple(removed), sum(removed.values()))


@dataclasses.dataclass(frozen=True)
class PruneReport:
    """What was removed from a cache.

    Attributes:
        removed: Sets, groups, leftovers, lock files and links that are gone. The folder of a set or a group
            stays if something else is in it.
        num_bytes: Size of their files.
    """

    removed: tuple[Path, ...]
    num_bytes: int


def prune_cache(root: Path, names: Sequence[str] = (), *, damaged: bool = False) -> PruneReport:
    """Remove leftovers of killed processes and unused lock files; on request also sets and damaged groups.

    Sets that were made for an epoch (`resample="epoch"`) are leftovers when no process uses them. Files that
    the cache has not written stay, wherever they are, and links are not followed. To see what would go before
    it does, use `plan_prune`.

    Args:
        root: Folder of all sets.
        names: Sets to remove. Of one that is a link, the link goes.
        damaged: Also remove the damaged groups of the other sets. What they need is generated again when it
            is asked for. Sets of another format, or whose `set.json` is damaged, are left alone; the latter
            is mended when the set is generated again.

    Returns:
        What was removed.

    Raises:
        CacheError: There is no set of that name, its `set.json` is damaged, another process is generating it,
            or the cache cannot be written.
    """
    return plan_prune(root, names, damaged=damaged).execute()


def plan_prune(root: Path, names: Sequence[str] = (), *, damaged: bool = False) -> PrunePlan:
    """Return what `prune_cache` would remove; arguments and errors are the same."""
    try:
        removals = [_plan_set(root, name) for name in dict.fromkeys(names)]
        links = [root / name for name in (LOCKS, PARTIAL) if (root / name).is_symlink()]
        removals += [removal_of_link(path) for path in links]
        if damaged:
            for found in find_sets(root):
                if found.settings is not None and found.folder.name not in names:
                    removals += _plan_damaged(root, found)
        removals += _plan_epochs(root, names)
        removals += [*find_leftovers(root), *_plan_locks(root)]
    except OSError as error:
        raise write_error(root, error) from error
    return PrunePlan(root, tuple(removals))


def _plan_set(root: Path, name: str) -> Removal:
    path = root / name
    if name == path.name and path.is_symlink() and as_set(path.resolve()) is not None:
        return removal_of_link(path)
    found = find_set(root, name)
    if not found.is_proven:
        raise CacheError(
            f"{path / SETTINGS} is damaged, and nothing else tells which files are the set's. Generate the "
            f"set again, which mends it, or look into {path} and remove it yourself"
        )
    of_epoch = found.settings is not None and epoch_of(found.settings["settings"]) is not None
    if of_epoch and not _is_unused(root, name):
        raise in_use(name)
    for lock_file in _lock_files(root):
        set_name, number = locked_by(lock_file) or ("", "")
        if set_name == name and not _is_free(root, set_name, number):
            raise busy(name, number)
    return Removal(path, "epoch" if of_epoch else "set", tuple(set_parts(found)), name)


def _plan_epochs(root: Path, named: Sequence[str]) -> Iterator[Removal]:
    """Yield the removals of sets of epochs that nobody uses, but of those that go by name."""
    for found, _ in find_epoch_sets(root):
        if found.folder.name not in named and _is_unused(root, found.folder.name):
            yield removal_of(found)


def _is_unused(root: Path, set_name: str) -> bool:
    if (root / LOCKS).is_symlink():  # no process uses it by a lock there
        return True
    with unused(root, set_name, keep=True) as free:
        return free


def _plan_damaged(root: Path, found: OwnSet) -> Iterator[Removal]:
    name, ipc = found.folder.name, found.ipc
    for group in found.groups():
        number = folder_number(group.name)
        if any(find_damage(group, ipc)) and _is_free(root, name, number) and any(find_damage(group, ipc)):
            yield Removal(group, "group", (Part(group, tuple(group_files(group, ipc)), number),), name, ipc)


def _plan_locks(root: Path) -> Iterator[Removal]:
    for path in entries(root / LOCKS):
        used = used_by(path)
        if used is not None and as_set(root / used) is None and _is_unused(root, used):
            yield Removal(path, "lock", (Part(path.parent, ()),), used)
    for path in _lock_files(root):
        owner = locked_by(path)
        if path.is_symlink():
            yield dataclasses.replace(removal_of_link(path), kind="lock")
        elif owner is not None and _is_free(root, *owner):
            yield Removal(path, "lock", (Part(path.parent, (), owner[1]),), owner[0])


def _lock_files(root: Path) -> list[Path]:
    found = [path for path in entries(root / LOCKS) if locked_by(path) is not None]
    return [path for path in found if path.is_symlink() or may_be_lock(path)]


def _is_free(root: Path, set_name: str, number: str) -> bool:
    """Say whether no other process generates a group."""
    if (root / LOCKS).is_symlink():  # no process takes a lock there
        return True
    with group_lock(root, set_name, number, timeout=0, keep=True) as hold:
        return hold is not Hold.BUSY
