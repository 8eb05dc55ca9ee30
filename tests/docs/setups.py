"""What pages need to run that a reader has: folders of images, models, a Hub.

In: an empty folder, where the page will run. Out: what its placeholders stand for. A page without a setup
here needs nothing.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from huggingface_hub import close_session
from PIL import Image

from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.image_sets.real_images import provide_fashion_mnist
from tests.docs.pages import ROOT
from tests.support.hub_server import HubServer, environment
from tests.support.tiny import CLASSES, save_tiny_artifact, tiny_pipeline
from tests.support.tiny_kinds import save_kind


@dataclass(frozen=True)
class Surroundings:
    """What a page runs in.

    Args:
        placeholders: Words of the page, as MODEL or ORG/NAME, and what stands for them in the test.
        environment: Variables of its commands and of its Python, those of Hugging Face included.
    """

    placeholders: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


Setup = Callable[[Path], AbstractContextManager[Surroundings]]


@contextmanager
def nothing(folder: Path) -> Iterator[Surroundings]:
    """Give a page an empty folder."""
    assert not list(folder.iterdir())
    yield Surroundings()


@contextmanager
def some_of_fashion_mnist(folder: Path) -> Iterator[Surroundings]:
    """Give a page real images in data/, where torchvision's download puts them: the first of each split."""
    save_some_of_fashion_mnist(folder)
    yield Surroundings()


def save_some_of_fashion_mnist(folder: Path) -> None:
    """Save the first 1,000 training and 200 test images as torchvision's files below `folder`/data."""
    provide_fashion_mnist(folder / "all")
    (folder / "data" / "FashionMNIST" / "raw").mkdir(parents=True)
    for path in sorted((folder / "all" / "FashionMNIST" / "raw").iterdir()):
        number, data = (1000 if path.name.startswith("train") else 200), path.read_bytes()
        header, size = (16, 784) if "images" in path.name else (8, 1)
        head = data[:4] + struct.pack(">I", number) + data[8:header]
        target = folder / "data" / "FashionMNIST" / "raw" / path.name
        target.write_bytes(head + data[header : header + size * number])
    shutil.rmtree(folder / "all")


@contextmanager
def reference_model(folder: Path) -> Iterator[Surroundings]:
    """Stand for ImageNet and DiT-XL/2: a few images of three classes and a tiny model."""
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    save_images(folder / "images")
    tiny_pipeline(channels=3).save_pretrained(folder / "model")
    yield Surroundings(
        {"IMAGENET": "images", "imagenet": "classes.json", "facebook/DiT-XL-2-256@COMMIT": "model"}
    )


@contextmanager
def images_and_model(folder: Path) -> Iterator[Surroundings]:
    """Give a page IMAGES of three classes, a tiny MODEL of them, and STATISTICS as the reference saves.

    The settings files of the recipes are where they are in a clone.
    """
    save_images(folder / "images")
    save_labelled_model(folder / "model")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / "statistics").mkdir()
    generator = torch.Generator().manual_seed(0)
    for name in CLASSES:  # 15 timesteps of (3, 4, 4) latents
        values = {key: torch.rand(15, 48, generator=generator).half() for key in ("mean", "variance")}
        torch.save(values, folder / "statistics" / f"{name.replace('/', '_')}.pt")
    yield Surroundings({"IMAGES": "images", "MODEL": "model", "STATISTICS": "statistics"})


@contextmanager
def images_and_models(folder: Path) -> Iterator[Surroundings]:
    """Give a page IMAGES, photos/ with train and val, a tiny MODEL of labels, and a TEXT-MODEL of prompts."""
    for part in ("images", "photos/train", "photos/val"):
        save_images(folder / part)
    tiny_pipeline(channels=3).save_pretrained(folder / "model")
    save_kind("sd-1", folder / "text-model")
    yield Surroundings({"IMAGES": "images", "TEXT-MODEL": "text-model", "MODEL": "model"})


@contextmanager
def images_of_two(folder: Path) -> Iterator[Surroundings]:
    """Give a page OUR-IMAGES and THEIR-IMAGES of three classes, a MODEL, and WITHDRAWN ones of theirs."""
    for seed, name in enumerate(("our-images", "their-images")):
        save_images(folder / name, seed)
    withdrawn = Path(CLASSES[0]) / "2.png"
    (folder / "withdrawn" / CLASSES[0]).mkdir(parents=True)
    shutil.copy(folder / "their-images" / withdrawn, folder / "withdrawn" / withdrawn)
    save_labelled_model(folder / "model")
    names = {"OUR-IMAGES": "our-images", "THEIR-IMAGES": "their-images", "WITHDRAWN": "withdrawn"}
    yield Surroundings({**names, "MODEL": "model"})


@contextmanager
def local_hub(folder: Path) -> Iterator[Surroundings]:
    """Give a page an artifact in FOLDER, and a Hub on this machine, which knows no repository yet."""
    save_tiny_artifact(folder / "artifact", folder.parent / "work")
    with HubServer() as server:
        try:
            yield Surroundings(PUBLISHED, environment(server.url, folder.parent / "home"))
        finally:
            close_session()


@contextmanager
def embedded_folder(folder: Path) -> Iterator[Surroundings]:
    """Give a page the embedded artifact as ARTIFACT, and real images in data/."""
    save_some_of_fashion_mnist(folder)
    yield Surroundings({"ARTIFACT": str(embedded_artifact("fashion-mnist"))})


def save_labelled_model(folder: Path) -> None:
    """Save the tiny model with the names of its classes."""
    tiny_pipeline(channels=3).save_pretrained(folder)
    index = folder / "model_index.json"
    label_map = {str(label): name for label, name in enumerate(CLASSES)}
    index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": label_map}))


def save_images(folder: Path, seed: int = 0) -> None:
    """Save four images of 32 x 32 noise for each of the tiny model's classes, a folder each."""
    generator = torch.Generator().manual_seed(seed)
    for name in CLASSES:
        (folder / name.replace("/", "_")).mkdir(parents=True)
        for number in range(4):
            pixels = torch.randint(0, 256, (32, 32, 3), generator=generator).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name.replace("/", "_") / f"{number}.png")


PUBLISHED = {"FOLDER": "artifact", "ORG/NAME": "org/name", "ORG/IMAGES": "org/images"}
# By the path of the page below the root of the repository.
SETUPS: dict[str, Setup] = {
    "docs/guides/build.md": images_and_model,
    "docs/guides/diffusion-models.md": images_and_models,
    "docs/guides/merge-and-forget.md": images_of_two,
    "docs/guides/continual-and-federated.md": images_of_two,
    "docs/guides/own-photos.md": images_and_models,
    "docs/guides/private-artifacts.md": images_and_model,
    "docs/guides/publish.md": local_hub,
    "docs/guides/reference-code.md": images_and_model,
    "docs/guides/scale-out.md": images_and_model,
    "docs/guides/use.md": embedded_folder,
    "docs/guides/tune.md": embedded_folder,
    "docs/guides/report.md": embedded_folder,
    "docs/reference-differences.md": reference_model,
    "docs/tutorials/first-set.md": some_of_fashion_mnist,
    "docs/guides/students.md": some_of_fashion_mnist,
    "docs/guides/evaluate.md": some_of_fashion_mnist,
    "README.md": some_of_fashion_mnist,
}
