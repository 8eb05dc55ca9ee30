"""Real images in folders, and what a report says of near copies of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from tests.support.tiny import IMAGE_SIZE

FOLDERS = ("ant", "000-Bee_wasp", "cat")
IPC = 4


def save(folder: Path, images: Sequence[Image.Image], labels: Sequence[int]) -> Path:
    """Save images in the folders of their classes."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / FOLDERS[label] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


def noise(number: int, seed: int) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(seed)
    shape = (number, 1, IMAGE_SIZE, IMAGE_SIZE)
    pixels = torch.randint(0, 256, shape, generator=generator).to(torch.uint8)
    return [to_pil_image(image) for image in pixels]


def written(folder: Path) -> tuple[Any, str]:
    """Return the numbers of near copies of a report, and its page."""
    numbers = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return numbers["copies"], (folder / "index.html").read_text(encoding="utf-8")
