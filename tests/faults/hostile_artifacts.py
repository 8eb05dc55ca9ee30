"""The cases of artifacts that mean harm: their files, texts and models, and models copied into one."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3hr_datasets.build.artifact_folder import copy_model
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.artifact import test_hostile
from tests.faults.hostile import Case
from tests.faults.hostile_changes import FILES, changed, of_others, replaced, use_images
from tests.faults.hostile_hubs import WEIGHTS, configs
from tests.support.tampering import METADATA, change_info, refresh_checksum

TEXTS = (
    "\x1b[31mred",
    "a\nb",
    "a\rb",
    "a\tb",
    "\x00",
    "\x07",
    "\x7f",
    "\x85",
    "\u202eevil",
    "\u2066x",
    "\u200bx",
    "\u2028",
    "\ud800",
    "\udfff",
    "\ue000",
    "x" * 5000,
)
JSONS = {
    "many objects": b'{"x": [' + b"{}," * 480_000 + b"{}]}",
    "many lists": b'{"x": [' + b"[]," * 480_000 + b"[]]}",
    "many numbers": b'{"x": [' + b"0," * 700_000 + b"0]}",
    "deep": b'{"x": ' + b"[" * 300_000,
    "long number": b'{"x": ' + b"9" * 1_400_000 + b"}",
    "no UTF-8": b'{"x": "\xff"}',
    "large": b'{"x": "' + b"x" * 5_000_000 + b'"}',
    "list": b"[]",
    "nothing": b"",
}


def artifacts(work: Path) -> dict[str, Case]:
    changes: dict[str, Callable[[Path], object]] = dict(test_hostile.ATTACKS)
    replacements: dict[str, Callable[[Path], object]] = {
        "FIFO": os.mkfifo,
        "folder": lambda path: path.mkdir(),
        "link to a secret": lambda path: path.symlink_to(of_others(path, "id_rsa")),
        "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "link to nothing": lambda path: path.symlink_to("nothing"),
        "sparse file": _sparse,
    }
    for name in FILES:
        for what, replace in replacements.items():
            if what != "sparse file" or not name.endswith(WEIGHTS):  # those are read to compare them
                changes[f"{what}: {name}"] = functools.partial(replaced, name, replace)
    for name in (METADATA, *FILES[4:7]):
        for what, data in JSONS.items():
            changes[f"{what}: {name}"] = functools.partial(_written, name, data)
    for part in ("transformer", "vae", "scheduler"):
        changes[f"linked folder: {part}"] = functools.partial(_linked, f"model/{part}")
    return {name: changed(work / "artifact", change, use_images) for name, change in changes.items()}


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 40 * 2**30)


def _written(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)
    if name != METADATA:
        refresh_checksum(folder, name)


def _linked(name: str, folder: Path) -> None:
    shutil.move(folder / name, folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    document = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    document["sha256"] = {n: d for n, d in document["sha256"].items() if not n.startswith(f"{name}/")}
    (folder / METADATA).write_text(json.dumps(document), encoding="utf-8")


def texts(work: Path) -> dict[str, Case]:
    fields: dict[str, Callable[[str], dict[str, Any]]] = {
        "name": lambda text: {"name": text},
        "class": lambda text: {"classes": [text, "b", "c"]},
        "WordNet ID": lambda text: {"wnids": [text, "b", "c"]},
        "producer": lambda text: {"producer": text},
        "licence": lambda text: {"source": {"license": text}},
        "key": lambda text: {"source": {text: 1}},
    }

    def change(field: str, text: str, folder: Path) -> None:
        change_info(folder, **fields[field](text))

    return {
        f"{field}: {text[:20]!a}": changed(
            work / "artifact", functools.partial(change, field, text), use_images
        )
        for field in fields
        for text in TEXTS
    }


def models(work: Path) -> dict[str, Case]:
    """Change a model that is inside an artifact, which says what it should be, with right checksums."""

    def change(name: str, key: str, value: Any, folder: Path) -> None:
        path = folder / "model" / name
        path.write_text(
            json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value}), encoding="utf-8"
        )
        refresh_checksum(folder, f"model/{name}")

    return {
        name: changed(work / "artifact", functools.partial(change, *found), use_images)
        for name, found in configs().items()
    }


def builds(work: Path) -> dict[str, Case]:
    """Copy the model of a build, which has links to files of others in it, into an artifact."""
    model = LatentDiffusion.from_pretrained(work / "model", device="cpu")
    replacements: dict[str, Callable[[Path], object]] = {
        "secret": lambda path: path.symlink_to(of_others(path, "id_rsa")),
        "card of others": lambda path: path.symlink_to(of_others(path, "README.md")),
        "relative link": _linked_relatively,
        "FIFO": os.mkfifo,
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    }

    def change(name: str, replace: Callable[[Path], object], folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        replace(folder / name)

    def use(folder: Path) -> None:
        copy_model(str(folder / "case" / "folder"), model, folder / "output")

    return {
        f"{name}: {what}": changed(work / "model", functools.partial(change, name, replace), use)
        for name in ("README.md", *(name.removeprefix("model/") for name in FILES[2:]))
        for what, replace in replacements.items()
    }


def _linked_relatively(path: Path) -> None:
    path.symlink_to(os.path.relpath(of_others(path, "id_rsa"), path.parent))
