"""A cache among things of others, as each round of the campaign `strangers` finds it."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from tests.faults.scene import IPC, Scene, empty_folder


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
