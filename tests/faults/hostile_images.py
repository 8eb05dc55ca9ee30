"""The cases of images and statistics that mean harm, for the campaign `hostile`."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.opening import open_source
from d3hr_datasets.sources.resizing import read_pixels
from tests.artifact import test_hostile
from tests.faults.hostile import SECRET, Case
from tests.faults.hostile_changes import linked_to, of_others, replaced
from tests.sources import test_foreign_images


def images() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for link, target in (
        ("ant/loop", "ant"),
        ("ant/up", "."),
        ("bee/other", "ant"),
        ("dog", "ant"),
        ("bee/x.png", "ant/0.png"),
    ):
        cases[f"link {link} to {target}"] = _read(functools.partial(_linked_in, link, target))
    contents = {
        "EPS": test_foreign_images.EPS,
        "PDF": b"%PDF-1.4",
        "secret": SECRET,
        "nothing": b"",
        "XPM": b"/* XPM */",
        "FITS": b"SIMPLE  = " + b" " * 2880,
        "MPEG": b"\x00\x00\x01\xb3" + bytes(100),
        "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(100),
        "Photoshop": b"8BPS" + bytes(100),
        "zip": b"PK\3\4" + bytes(100),
        "bomb": _bomb(),
    }
    for what, data in contents.items():
        cases[f"an image is {what}"] = _read(functools.partial(_overwritten, data))
    for what, replace in {
        "FIFO": os.mkfifo,
        "folder": lambda path: path.mkdir(),
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "secret": lambda path: path.symlink_to(of_others(path, "id_rsa")),
    }.items():
        cases[f"an image is replaced by {what}"] = _read(functools.partial(replaced, "ant/0.png", replace))
    return cases


def _linked_in(link: str, target: str, root: Path) -> None:
    (root / link).symlink_to(root / target)


def _overwritten(data: bytes, root: Path) -> None:
    (root / "ant" / "0.png").write_bytes(data)


def _bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    return buffer.getvalue()


def _read(change: Callable[[Path], object]) -> Case:
    def case(folder: Path) -> Callable[[], object]:
        root = folder / "case"
        for name in ("ant", "bee", "cat"):
            (root / name).mkdir(parents=True)
            for number in range(4):
                Image.new("L", (8, 8), number).save(root / name / f"{number}.png")
        change(root)

        def read() -> None:
            images = open_source(str(root)).images
            if images.num_images != 12:  # a link to no image is none
                raise ConfigError(f"there are {images.num_images} images")
            for record in images.records(0, 0):
                read_pixels(record, 8, "L")

        return read

    return case


def statistics() -> dict[str, Case]:
    def case_of(attack: Callable[[Path], object]) -> Case:
        def case(folder: Path) -> Callable[[], object]:
            root = folder / "case"
            root.mkdir()
            for name in ("n1", "n2", "n3"):
                torch.save(test_foreign_images.GOOD, root / f"{name}.pt")
            attack(root / "n2.pt")
            return lambda: test_foreign_images.import_of(root, folder / "output")

        return case

    attacks: dict[str, Callable[[Path], object]] = dict(test_foreign_images.ATTACKS)
    attacks["pickle that writes"] = lambda path: path.write_bytes(test_hostile.PICKLE)
    attacks["torch file that writes"] = lambda path: path.write_bytes(test_hostile.torch_file())
    attacks["link to a secret"] = functools.partial(linked_to, "id_rsa")
    attacks["link to /dev/zero"] = functools.partial(linked_to, "/dev/zero")
    return {name: case_of(attack) for name, attack in attacks.items()}
