"""Malformed inputs of a build: images, class maps and lists, settings, artifacts, reference statistics.

Each must be refused with an error of this library, or be read as what it says; nothing else may be raised.
"""

from __future__ import annotations

import copy
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, features

from d3hr_datasets import Artifact, ArtifactInfo, D3HRError, DecodeConfig, InversionConfig, ModelReference
from d3hr_datasets.build.reading_ahead import read_record
from d3hr_datasets.build.reference_import import TIMESTEPS, import_statistics, imported_inversion
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.matching import match_classes, parse_class_list, read_class_map
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import (
    ArtifactFormatError,
    ArtifactIntegrityError,
    ConfigError,
    StatisticsError,
    UnreadableImageError,
)
from d3hr_datasets.sources.records import ImageRecord
from tests.faults.scene import Scene, promise
from tests.support.tampering import METADATA, read_document, write_document
from tests.support.tiny import CLASSES, tiny_info, tiny_pipeline

FORMATS = [
    "PNG",
    "JPEG",
    "BMP",
    "GIF",
    "WEBP",
    "TIFF",
    "PPM",
    "TGA",
    "ICO",
    "DDS",
    "PCX",
    "SGI",
    "IM",
    *(["AVIF"] if features.check("avif") else []),
]
JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    float("nan"),
    float("inf"),
    10**30,
    "",
    "x",
    "\0",
    "../x",
    [],
    {},
    [None],
    [[]],
    {"x": 1},
    [1, "x"],
    ["a", "a"],
    [-1],
)


def run(scene: Scene, rounds: int) -> None:
    """Feed malformed inputs, `rounds` of the random kinds and each of the others once."""
    for number in range(rounds):
        _image(scene, FORMATS[number % len(FORMATS)])
    _settings(scene)
    _models(scene, rounds)
    _classes(scene, rounds)
    _artifacts(scene, rounds)
    _statistics(scene, max(3, rounds // 5))


def _try(scene: Scene, what: str, kinds: tuple[type[D3HRError], ...], work: Callable[[], object]) -> bool:
    """Say whether something is accepted; it may only be refused with one of these errors."""
    try:
        work()
    except kinds as error:
        promise(len(str(error)) > 10, f"{what}: the error says nothing: {error!r}")
        scene.counts[f"malformed: {what}, refused"] += 1
        return False
    scene.counts[f"malformed: {what}, read as it says"] += 1
    return True


def _image(scene: Scene, kind: str) -> None:
    """Damage the file of an image: cut it, change bytes, put something else in front, or empty it."""
    buffer = io.BytesIO()
    noise = scene.random.randbytes(16 * 16)
    Image.frombytes("L", (16, 16), noise).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    way = scene.random.choice(["cut", "cut", "bytes", "bytes", "head", "other", "empty"])
    if way == "cut":
        del data[scene.random.randrange(len(data)) :]
    elif way == "bytes":
        for _ in range(scene.random.randint(1, 20)):
            data[scene.random.randrange(len(data))] = scene.random.randrange(256)
    elif way == "head":
        data[: scene.random.randint(1, 64)] = scene.random.randbytes(16)
    else:
        data = bytearray(scene.random.randbytes(scene.random.randint(1, 400)) if way == "other" else b"")

    def read() -> None:
        record = ImageRecord("image 0", "0", lambda: (Image.open(io.BytesIO(data)), 0))
        pixels, label = read_record(record, tiny_info())
        promise(pixels.shape == (1, 16, 16) and label == 0 and bool(pixels.isfinite().all()), "wrong pixels")

    _try(scene, "images", (UnreadableImageError,), read)


def _settings(scene: Scene) -> None:
    """Put junk into every field of every settings object, leave fields out and add others."""
    info = tiny_info()
    objects: list[Any] = [
        InversionConfig((400,)),
        DecodeConfig(400),
        ModelReference("a/b", "c" * 40),
        info,
    ]
    for settings in objects:
        values = settings.to_dict()
        for field in values:
            for junk in JUNK:
                _settings_of(scene, type(settings), {**values, field: junk})
            _settings_of(scene, type(settings), {k: v for k, v in values.items() if k != field})
        _settings_of(scene, type(settings), {**values, "unknown": 1})


def _settings_of(scene: Scene, kind: Any, values: dict[str, Any]) -> None:
    def make() -> None:
        made = kind.from_dict(copy.deepcopy(values))
        promise(kind.from_dict(made.to_dict()) == made, f"{kind.__name__} of {values} comes back as another")

    _try(scene, "settings", (ConfigError,), make)


def _models(scene: Scene, rounds: int) -> None:
    """Load models whose configurations say something else in one place, and invert by those that load."""
    folder = scene.folder / "malformed-model"
    tiny_pipeline().save_pretrained(folder)
    paths = [folder / part / "config.json" for part in ("transformer", "vae")]
    paths.append(folder / "scheduler" / "scheduler_config.json")
    documents = {path: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    places = [(path, key) for path in paths for key in sorted(documents[path]) if not key.startswith("_")]

    def use() -> None:
        model = LatentDiffusion.from_pretrained(folder, device="cpu")
        shape = (1, model.image_channels, model.sample_size, model.sample_size)
        config = InversionConfig((400,), 10, model.schedule.num_train_timesteps)
        latents = model.invert(model.encode(torch.zeros(shape)), torch.tensor([0]), config)[400]
        promise(bool(latents.isfinite().all()), "latents are not finite")

    for _ in range(rounds):
        path, key = scene.random.choice(places)
        path.write_text(json.dumps({**documents[path], key: scene.random.choice(JUNK)}), encoding="utf-8")
        _try(scene, "models", (D3HRError,), use)
        path.write_text(json.dumps(documents[path]), encoding="utf-8")


def _classes(scene: Scene, rounds: int) -> None:
    """Match classes by malformed maps and lists."""
    model = ClassList(CLASSES)
    path = scene.folder / "map.json"
    whole: dict[str, Any] = dict(zip(CLASSES, range(3), strict=True))

    def match(class_map: Any) -> None:
        _, labels = match_classes(CLASSES, model, 3, class_map)
        promise(sorted(labels) == [0, 1, 2], f"{class_map} maps not all classes")

    for junk in JUNK:
        for name in CLASSES:
            _try(scene, "class maps", (ConfigError,), lambda n=name, j=junk: match({**whole, n: j}))  # type: ignore[misc]
        _try(scene, "class lists", (ConfigError,), lambda j=junk: parse_class_list(j, "list"))  # type: ignore[misc]
        for key in ("names", "wnids"):
            values = {"names": list(CLASSES), "wnids": list("xyz"), key: junk}
            _try(scene, "class lists", (ConfigError,), lambda v=values: parse_class_list(v, "list"))  # type: ignore[misc]
    text = json.dumps(whole).encode()
    for _ in range(rounds):
        data = bytearray(text)
        for _ in range(scene.random.randint(1, 5)):
            data[scene.random.randrange(len(data))] = scene.random.randrange(256)
        path.write_bytes(data[: scene.random.randint(0, len(data))])
        _try(scene, "class maps", (ConfigError,), lambda: match(read_class_map(path)))
    path.unlink()


def _artifacts(scene: Scene, rounds: int) -> None:
    """Put junk into the description of an artifact, and change bytes of it."""
    folder = Path(shutil.copytree(scene.artifact, scene.folder / "malformed"))
    document = read_document(folder)
    text = (folder / METADATA).read_bytes()
    kinds = (ArtifactFormatError, ArtifactIntegrityError)

    def load() -> None:
        ArtifactInfo.from_dict(Artifact.load(folder).info.to_dict())

    for field in document["info"]:
        for junk in JUNK:
            write_document(folder, {**document, "info": {**document["info"], field: junk}})
            _try(scene, "artifacts", kinds, load)
    for _ in range(rounds):
        data = bytearray(text)
        for _ in range(scene.random.randint(1, 20)):
            data[scene.random.randrange(len(data))] = scene.random.randrange(256)
        (folder / METADATA).write_bytes(data)
        _try(scene, "artifacts", kinds, load)
    shutil.rmtree(folder)


def _statistics(scene: Scene, rounds: int) -> None:
    """Damage files of reference statistics, or put other things into them."""
    folder = scene.folder / "statistics"
    folder.mkdir()
    shape = (len(TIMESTEPS), 3 * 4 * 4)
    good = {"mean": torch.zeros(shape).half(), "variance": torch.ones(shape).half()}
    info = tiny_info(
        inversion=imported_inversion((600,), 1000), decode=DecodeConfig(600), wnids=("n1", "n2", "n3")
    )
    for name in info.wnids or ():
        torch.save(good, folder / f"{name}.pt")
    data = (folder / "n2.pt").read_bytes()
    target = scene.folder / "imported"
    others: list[Any] = [
        None,
        [],
        {},
        {"mean": good["mean"]},
        {**good, "mean": 1.0},
        {**good, "mean": torch.zeros(2, 2)},
        {**good, "variance": -good["variance"]},
        {**good, "mean": good["mean"] / 0},
        InversionConfig((600,)),
    ]
    for other in others:
        torch.save(other, folder / "n2.pt")
        accepted = _try(
            scene, "statistics", (StatisticsError,), lambda: import_statistics(folder, target, info)
        )
        promise(not accepted and not target.exists(), "malformed statistics became an artifact")
    for _ in range(rounds):
        (folder / "n2.pt").write_bytes(data[: scene.random.randrange(len(data))])
        accepted = _try(
            scene, "statistics", (StatisticsError,), lambda: import_statistics(folder, target, info)
        )
        promise(not accepted and not target.exists(), "malformed statistics became an artifact")
    (folder / "n2.pt").write_bytes(data)
    import_statistics(folder, target, info)
    shutil.rmtree(folder)
    shutil.rmtree(target)
