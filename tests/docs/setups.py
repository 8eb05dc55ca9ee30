"""What pages need to run that a reader has: folders of images, models, a Hub.

In: an empty folder, where the page will run. Out: what its placeholders stand for. A page without a setup
here needs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from recipes.data.images import fashion_mnist
from tests.support.tiny import CLASSES, tiny_pipeline


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
def real_fashion_mnist(folder: Path) -> Iterator[Surroundings]:
    """Give a page the real images in data/, where torchvision's download puts them."""
    fashion_mnist(train=False, root=folder / "data")
    yield Surroundings()


@contextmanager
def reference_model(folder: Path) -> Iterator[Surroundings]:
    """Stand for ImageNet and DiT-XL/2: a few images of three classes and a tiny model."""
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    save_images(folder / "images")
    tiny_pipeline(channels=3).save_pretrained(folder / "model")
    yield Surroundings(
        {"IMAGENET": "images", "imagenet": "classes.json", "facebook/DiT-XL-2-256@COMMIT": "model"}
    )


def save_images(folder: Path) -> None:
    """Save four images of 16 x 16 noise for each of the tiny model's classes, a folder each."""
    generator = torch.Generator().manual_seed(0)
    for name in CLASSES:
        (folder / name.replace("/", "_")).mkdir(parents=True)
        for number in range(4):
            pixels = torch.randint(0, 256, (16, 16, 3), generator=generator).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name.replace("/", "_") / f"{number}.png")


# By the path of the page below the root of the repository.
SETUPS: dict[str, Setup] = {
    "docs/reference-differences.md": reference_model,
    "docs/tutorials/first-set.md": real_fashion_mnist,
}
