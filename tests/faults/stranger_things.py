"""What the campaign `strangers` lays into a cache: things of others, and damage of the cache's own."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

from d3hr_datasets.cache.files import MANIFEST, SETTINGS
from d3hr_datasets.cache.leftovers import LEFTOVER_AGE
from d3hr_datasets.cache.locks import LOCKS, PARTIAL
from tests.faults.scene import IPC
from tests.faults.stranger_place import Place
from tests.support.tampering import flip_byte

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
