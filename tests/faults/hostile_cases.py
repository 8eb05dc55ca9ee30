"""The cases of the campaign `hostile`, by kind and name."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.build.artifact_folder import copy_model
from d3hr_datasets.build.model_facts import model_reference
from d3hr_datasets.classes.matching import read_class_list, read_class_map
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.opening import SourceOptions, open_source
from d3hr_datasets.sources.resizing import read_pixels
from tests.artifact import test_hostile
from tests.faults.hostile import SECRET, Case
from tests.faults.hostile_hubs import WEIGHTS, configs, hubs
from tests.sources import test_foreign_images
from tests.support.tampering import METADATA, STATISTICS, change_info, refresh_checksum
from tests.support.tiny import save_tiny_artifact, tiny_info, tiny_pipeline

FILES = (
    METADATA,
    STATISTICS,
    f"model/transformer/{WEIGHTS}",
    f"model/vae/{WEIGHTS}",
    "model/transformer/config.json",
    "model/vae/config.json",
    "model/scheduler/scheduler_config.json",
    "model/model_index.json",
)
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
PLACES = (
    "a" * 300,
    "a" * 5000,
    "org/" + "a" * 5000,
    "a\0b",
    "\ud800",
    "../" * 2000 + "x",
    "/dev/zero",
    "/dev/null/x",
    "others/id_rsa",
    "",
    ".",
    "fifo",
    "\x1b[31m",
    "file:///etc/passwd",
    "https://example.org/x",
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


def prepare(work: Path) -> dict[str, dict[str, Case]]:
    """Make an artifact, a model and images to start from, and return the cases by kind."""
    save_tiny_artifact(work / "artifact", work / "chunks")
    tiny_pipeline().save_pretrained(work / "model")
    return {
        "artifacts": _artifacts(work),
        "texts": _texts(work),
        "models": _models(work),
        "hubs": hubs(work),
        "images": _images(),
        "statistics": _statistics(),
        "builds": _builds(work),
        "places": _places(),
    }


def _use(folder: Path) -> object:
    return D3HRDataset(folder / "case" / "folder", folder / "cache", 1, device="cpu", classes=[0])[0]


def _changed(source: Path, change: Callable[[Path], object], use: Callable[[Path], object]) -> Case:
    """Return a case that copies a folder, changes the copy and uses it."""

    def case(folder: Path) -> Callable[[], object]:
        shutil.copytree(source, folder / "case" / "folder")
        change(folder / "case" / "folder")
        return functools.partial(use, folder)

    return case


def _artifacts(work: Path) -> dict[str, Case]:
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
                changes[f"{what}: {name}"] = functools.partial(_replaced, name, replace)
    for name in (METADATA, *FILES[4:7]):
        for what, data in JSONS.items():
            changes[f"{what}: {name}"] = functools.partial(_written, name, data)
    for part in ("transformer", "vae", "scheduler"):
        changes[f"linked folder: {part}"] = functools.partial(_linked, f"model/{part}")
    return {name: _changed(work / "artifact", change, _use) for name, change in changes.items()}


def of_others(path: Path, name: str) -> Path:
    """Return a file of others, from the path of a file of a case."""
    return next(above for above in path.parents if above.name == "case").parent / "others" / name


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 40 * 2**30)


def _linked_to(name: str, path: Path) -> None:
    path.unlink()
    path.symlink_to(name if name.startswith("/") else of_others(path, name))


def _linked_relatively(path: Path) -> None:
    path.symlink_to(os.path.relpath(of_others(path, "id_rsa"), path.parent))


def _linked_in(link: str, target: str, root: Path) -> None:
    (root / link).symlink_to(root / target)


def _replaced(name: str, replace: Callable[[Path], object], folder: Path) -> None:
    (folder / name).unlink()
    replace(folder / name)


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


def _texts(work: Path) -> dict[str, Case]:
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
        f"{field}: {text[:20]!a}": _changed(work / "artifact", functools.partial(change, field, text), _use)
        for field in fields
        for text in TEXTS
    }


def _models(work: Path) -> dict[str, Case]:
    """Change a model that is inside an artifact, which says what it should be, with right checksums."""

    def change(name: str, key: str, value: Any, folder: Path) -> None:
        path = folder / "model" / name
        path.write_text(
            json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value}), encoding="utf-8"
        )
        refresh_checksum(folder, f"model/{name}")

    return {
        name: _changed(work / "artifact", functools.partial(change, *found), _use)
        for name, found in configs().items()
    }


def _images() -> dict[str, Case]:
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
        cases[f"an image is replaced by {what}"] = _read(functools.partial(_replaced, "ant/0.png", replace))
    return cases


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


def _statistics() -> dict[str, Case]:
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
    attacks["link to a secret"] = functools.partial(_linked_to, "id_rsa")
    attacks["link to /dev/zero"] = functools.partial(_linked_to, "/dev/zero")
    return {name: case_of(attack) for name, attack in attacks.items()}


def _builds(work: Path) -> dict[str, Case]:
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
        f"{name}: {what}": _changed(work / "model", functools.partial(change, name, replace), use)
        for name in ("README.md", *(name.removeprefix("model/") for name in FILES[2:]))
        for what, replace in replacements.items()
    }


def _places() -> dict[str, Case]:
    """Give places that are none wherever one may be given."""

    def streamed(text: str) -> object:
        return open_source(f"datasets:{text}", SourceOptions(streaming=True))

    uses: dict[str, Callable[[str], object]] = {
        "artifact": lambda text: Artifact.from_pretrained(text, local_files_only=True),
        "data set": lambda text: D3HRDataset(text or "nowhere", "cache", 1),
        "images": open_source,
        "class list": lambda text: read_class_list(f"{text}.json"),
        "class map": read_class_map,
        "model": lambda text: model_reference(f"{text}x"),
        "torchvision": lambda text: open_source(f"torchvision:{text or 'x'}:{text}"),
        "name": lambda text: tiny_info(name=f"{text}/"),
    }

    def case_of(use: Callable[[str], object], text: str) -> Case:
        def case(folder: Path) -> Callable[[], object]:
            return lambda: use(text)

        return case

    return {
        f"{what}: {text[:20]!a}": case_of(use, text)
        for what, use in uses.items()
        for text in PLACES
        if what != "images" or text not in {"", "."}
    }
