"""A cache among things of others: pictures, exports, links, FIFOs, sockets, folders that look like sets.

Whatever is listed, verified, pruned and generated, nothing that the cache has not written may change; nothing
may be waited for, and what is refused must be refused by an error that names it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3hr_datasets.cache.files import MANIFEST, SETTINGS
from d3hr_datasets.cache.inspection import list_cached_sets, verify_cached_set
from d3hr_datasets.cache.leftovers import LEFTOVER_AGE
from d3hr_datasets.cache.locks import LOCKS, PARTIAL
from d3hr_datasets.cache.prune import plan_prune, prune_cache
from d3hr_datasets.errors import CacheError
from tests.faults.scene import IPC, Scene, empty_folder, fork, promise, wait
from tests.support.tampering import flip_byte

SECONDS = 2.0  # for one call that lists, verifies or prunes
JUNK = (
    b"",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"null",
    b"[]",
    b'{"format": 1}',
    b'{"format": 9}',
    b"\xff\xfe",
    b'{"name": "Alpha", "cards": []}',
    b'{"sha256": []}',
    b'{"format": 1, "sha256": "0"}',
    b'{"format": 1, "ipc": 3, "num_groups": 3, "settings": {}}',
)


class Place:
    """A cache of the clean run's images, what lies around it, and what of that may go."""

    def __init__(self, scene: Scene) -> None:
        self.random = scene.random
        folder = empty_folder(scene.folder / "strangers")
        self.root, self.outside = folder / "root", folder / "outside"
        shutil.copytree(scene.folder / "clean", self.root)
        shutil.copytree(scene.folder / "clean", self.outside / "cache")
        self.set = scene.dataset(self.root).image_folder
        self.groups = [self.set / name for name in scene.dataset(self.root).cache.class_folders]
        self.own = {path for path in self.root.rglob("*") if not path.is_dir()}
        self.pictures(self.outside / "pictures")
        self.host = socket.gethostname()

    def pictures(self, folder: Path) -> None:
        """Lay pictures down as the cache does, with other bytes in them."""
        for name in ("0", "1", self.groups[0].name):
            (folder / name).mkdir(parents=True)
            for index in range(IPC):
                (folder / name / f"{index:05d}.png").write_bytes(self.random.randbytes(20))

    def group(self) -> Path:
        return self.random.choice(self.groups)

    def image(self) -> Path:
        return self.group() / f"{self.random.randrange(IPC):05d}.png"

    def odd(self, path: Path, *, links_too: bool = True) -> str:
        """Put something that is no file in the place of a file; return its kind."""
        kind = self.random.choice(["fifo", "socket", "folder", *(["link", "dangling"] if links_too else [])])
        if os.path.lexists(path):
            path.unlink()
        self.own.discard(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            _bind(path)
        elif kind == "folder":
            path.mkdir()
        else:
            target = self.outside / "pictures" / "0" / "00000.png"
            path.symlink_to(target if kind == "link" else self.outside / "nothing")
            self.own.add(path)  # the link is in the place of an own file, and may go
        return kind


def _bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def _user_pictures(place: Place) -> None:
    place.pictures(place.root / "digits")


def _export(place: Place) -> None:
    shutil.copytree(
        place.outside / "cache" / place.set.name,
        place.root / "export",
        ignore=shutil.ignore_patterns("*.json"),
    )
    flip_byte(place.root / "export" / place.groups[0].name / "00000.png")


def _looks_like_a_set(place: Place) -> None:
    folder = place.root / "deck"
    place.pictures(folder)
    (folder / SETTINGS).write_bytes(place.random.choice(JUNK))
    (folder / place.groups[0].name / MANIFEST).write_bytes(place.random.choice(JUNK))


def _lacks_its_settings(place: Place) -> None:
    shutil.copytree(place.outside / "cache" / place.set.name, place.root / "copy")
    (place.root / "copy" / SETTINGS).unlink()
    flip_byte(place.root / "copy" / place.groups[1].name / "00001.png")


def _linked_folders(place: Place) -> None:
    (place.root / "album").symlink_to(place.outside / "pictures")
    (place.root / "linked").symlink_to(place.outside / "cache" / place.set.name)
    place.own.add(place.root / "linked")


def _odd_things_in_the_root(place: Place) -> None:
    for name in ("a", "b", ".c"):
        place.odd(place.root / name)
        place.own.discard(place.root / name)
    place.odd(place.root / "odd" / SETTINGS)
    place.own.discard(place.root / "odd" / SETTINGS)
    place.pictures(place.root / ".hidden")


def _leftovers(place: Place) -> None:
    if (place.root / PARTIAL).is_symlink():
        return
    names = [f"{place.set.name}.{n:03d}.{place.host}.{place.random.randbytes(16).hex()}" for n in range(3)]
    dead = place.root / PARTIAL / names[0]
    dead.mkdir(parents=True)
    (dead / "00000.png").write_bytes(b"half")
    place.own.add(dead / "00000.png")
    (dead / "notes.txt").write_text("mine")
    (place.root / PARTIAL / names[1]).symlink_to(place.outside / "pictures")
    place.own.add(place.root / PARTIAL / names[1])
    place.odd(place.root / PARTIAL / names[2], links_too=False)
    if (place.root / PARTIAL / names[2]).is_dir():
        place.own.add(place.root / PARTIAL / names[2])  # an empty folder of that name is a leftover
    place.pictures(place.root / PARTIAL / "mine")
    long_ago = time.time() - 2 * LEFTOVER_AGE
    os.utime(place.root / PARTIAL / "mine", (long_ago, long_ago))


def _locks(place: Place) -> None:
    folder, name = place.root / LOCKS, place.set.name
    if folder.is_symlink():
        return
    folder.mkdir(exist_ok=True)
    (folder / "poetry.lock").touch()
    (folder / f"{name}.{place.random.randrange(4):03d}.lock").write_text("mine")
    link = folder / f"{name}.009.lock"
    link.symlink_to(place.outside / "pictures" / "1" / "00000.png")
    place.own.add(link)
    place.odd(folder / f"{name}.{place.random.randrange(4, 8):03d}.lock", links_too=False)


def _linked_partial(place: Place) -> None:
    _link_instead(place, PARTIAL, f"{place.set.name}.000.{place.host}.{'0' * 32}")


def _linked_locks(place: Place) -> None:
    _link_instead(place, LOCKS, f"{place.set.name}.000.lock")


def _link_instead(place: Place, name: str, inner: str) -> None:
    if (place.root / name).is_symlink() or list((place.root / name).glob("*")):
        return
    shutil.rmtree(place.root / name, ignore_errors=True)
    place.pictures(place.outside / name / inner)
    (place.root / name).symlink_to(place.outside / name)
    place.own.add(place.root / name)


def _files_in_the_set(place: Place) -> None:
    (place.set / "notes.txt").write_text("mine")
    place.pictures(place.set / "pictures")
    (place.group() / ".DS_Store").write_bytes(b"finder")
    (place.set / "099-mine").mkdir()
    (place.set / "099-mine" / "00000.png").write_bytes(b"mine")


def _images_in_a_group(place: Place) -> None:
    group = place.group()
    if group.is_symlink():
        return
    for name in ("cat.png", f"{IPC:05d}.png", "0.png", "00000.PNG"):
        (group / name).write_bytes(b"mine")
    (group / "inner").mkdir(exist_ok=True)
    (group / "inner" / "00000.png").write_bytes(b"mine")


def _linked_group(place: Place) -> None:
    group = place.groups[2]
    if group.is_symlink() or set(group.iterdir()) - place.own:
        return
    shutil.rmtree(group)
    place.own -= {path for path in place.own if path.parent == group}
    group.symlink_to(place.outside / "pictures" / "1")


def _odd_image(place: Place) -> None:
    path = place.image()
    if path in place.own and not path.parent.is_symlink():
        place.odd(path)


def _odd_manifest(place: Place) -> None:
    path = place.group() / MANIFEST
    if path in place.own and not path.parent.is_symlink():
        place.odd(path)


def _odd_settings(place: Place) -> None:
    if place.set / SETTINGS in place.own:
        place.odd(place.set / SETTINGS)


def _damage(place: Place) -> None:
    for path in (place.image(), place.image()):
        if path in place.own and path.is_file() and not path.is_symlink():
            flip_byte(path)


def _junk(place: Place) -> None:
    path = place.random.choice([place.set / SETTINGS, place.group() / MANIFEST])
    if path in place.own and path.is_file() and not path.is_symlink():
        path.write_bytes(place.random.choice(JUNK))


STRANGERS: tuple[Callable[[Place], None], ...] = (
    _user_pictures,
    _export,
    _looks_like_a_set,
    _lacks_its_settings,
    _linked_folders,
    _odd_things_in_the_root,
    _leftovers,
    _locks,
    _linked_partial,
    _linked_locks,
    _files_in_the_set,
    _images_in_a_group,
    _linked_group,
    _odd_image,
    _odd_manifest,
    _odd_settings,
    _damage,
    _damage,
    _junk,
)


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
