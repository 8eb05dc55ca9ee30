"""Caches beside what is not theirs, for tests that nothing of it is touched."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.inspection import list_cached_sets, verify_cached_set
from d3hr_datasets.cache.prune import prune_cache

IPC = 2


def two_images() -> list[Image.Image]:
    return [Image.new("L", (5, 5), 100 + position) for position in range(IPC)]


def small_cache(root: Path, name: str = "set") -> ImageCache:
    cache = ImageCache(root, name, ["a", "b"], IPC)
    for label in (0, 1):
        cache.ensure(label, two_images)
    return cache


def user_images(folder: Path) -> Path:
    """Lay a user's images down as the cache lays its own, with a damaged one among them."""
    for label in range(3):
        (folder / str(label)).mkdir(parents=True)
        for index in range(2):
            two_images()[0].save(folder / str(label) / f"{index:05d}.png")
    (folder / "0" / "00002.png").write_bytes(b"not an image")
    return folder


def snapshot(folder: Path) -> dict[str, object]:
    """Return what is below a folder: types, bytes, and where links lead."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        link = path.readlink() if path.is_symlink() else None
        data = path.read_bytes() if path.is_file() and link is None else None
        found[str(path.relative_to(folder))] = (oct(state.st_mode), state.st_ino, link, data)
    return found


def use_all(root: Path) -> None:
    """List, verify and prune everything that can be."""
    for found in list_cached_sets(root):
        verify_cached_set(root, found.name)
    prune_cache(root, damaged=True)
