"""A cache among things of others: pictures, exports, links, FIFOs, sockets, folders that look like sets.

Whatever is listed, verified, pruned and generated, nothing that the cache has not written may change; nothing
may be waited for, and what is refused must be refused by an error that names it.
"""

from __future__ import annotations

import json
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3hr_datasets.cache.inspection import list_cached_sets, verify_cached_set
from d3hr_datasets.cache.prune import plan_prune, prune_cache
from d3hr_datasets.errors import CacheError
from tests.faults.scene import Scene, fork, promise, wait
from tests.faults.stranger_place import Place
from tests.faults.stranger_things import STRANGERS

SECONDS = 2.0  # for one call that lists, verifies or prunes


def run(scene: Scene, rounds: int) -> None:
    """Lay three to seven strangers into a cache, use it in every way, and compare what is not the cache's."""
    for _ in range(rounds):
        place = Place(scene)
        for lay in scene.random.sample(STRANGERS, scene.random.randint(3, 7)):
            lay(place)
            scene.counts[f"strangers: {lay.__name__.strip('_').replace('_', ' ')}"] += 1
        before = _state(place)
        uses = scene.random.sample(sorted(USES), len(USES))
        named = scene.random.choice(["digits", "album", "deck", "..", "linked", place.set.name])
        outcome = place.root.parent / "outcome.json"
        wait(fork(_use_all, scene, place, uses, named, outcome), expected=0)
        for what in json.loads(outcome.read_text()):
            scene.counts[f"strangers: {what}"] += 1
        after = _state(place)
        changed = sorted(path for path in before if after.get(path) != before[path])
        promise(not changed, f"{uses}, {named}: what is not the cache's was changed: {changed[:5]}")
        scene.counts["strangers: rounds"] += 1
        scene.counts["strangers: files, links and others compared"] += len(before)
    shutil.rmtree(scene.folder / "strangers", ignore_errors=True)


def _state(place: Place) -> dict[str, tuple[Any, ...]]:
    """Return what is there that is not the cache's: types, inodes, times, bytes, and where links lead."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [*place.root.rglob("*"), *place.outside.rglob("*")]:
        state = path.lstat()
        own_folder = stat.S_ISDIR(state.st_mode) and path.is_relative_to(place.root)
        if path in place.own or own_folder:  # folders of the root show by what is in them
            continue
        content = path.read_bytes() if stat.S_ISREG(state.st_mode) else None
        link = str(path.readlink()) if stat.S_ISLNK(state.st_mode) else None
        found[str(path)] = (state.st_mode, state.st_ino, state.st_mtime_ns, content, link)
    return found


def _use_all(scene: Scene, place: Place, uses: list[str], named: str, outcome: Path) -> None:
    """Use a cache in each way; the only error may be one of the library that names what is in the way."""
    found = []
    for use in uses:
        begin = time.monotonic()
        try:
            USES[use](scene, place, named)
            found.append(f"{use}, done")
        except CacheError as error:
            promise(any(word in str(error) for word in (str(place.root), named)), f"{use}: {error}")
            found.append(f"{use}, refused")
        took = time.monotonic() - begin
        promise(use in {"generate", "use"} or took < SECONDS, f"{use} takes {took:.1f} s")
    outcome.write_text(json.dumps(found))


def _list(_: Scene, place: Place, __: str) -> None:
    names = {found.name for found in list_cached_sets(place.root)}
    promise(names <= {place.set.name}, f"taken for sets: {names}")


def _verify(_: Scene, place: Place, __: str) -> None:
    for found in list_cached_sets(place.root):
        damaged = verify_cached_set(place.root, found.name)
        promise(all(path.is_relative_to(place.set) for path in damaged), f"verified: {damaged}")


def _prune(_: Scene, place: Place, __: str) -> None:
    plan = plan_prune(place.root, damaged=True)
    planned = {removal.path for removal in plan.removals}
    report = plan.execute()
    promise(set(report.removed) <= planned, "more was removed than planned")


def _prune_named(_: Scene, place: Place, named: str) -> None:
    prune_cache(place.root, [named], damaged=True)
    promise(named in {"linked", place.set.name}, f"{named} was removed")


def _read(scene: Scene, place: Place, _: str) -> None:
    scene.check_what_is_there(place.root)


def _use(scene: Scene, place: Place, _: str) -> None:
    scene.read(place.root)


def _generate(scene: Scene, place: Place, _: str) -> None:
    scene.generate(place.root)


USES: dict[str, Callable[[Scene, Place, str], None]] = {
    "list": _list,
    "verify": _verify,
    "prune": _prune,
    "prune a name": _prune_named,
    "read": _read,
    "use": _use,
    "generate": _generate,
}
