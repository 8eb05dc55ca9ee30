"""Images are opened the same whatever default dtype and device, autocast and gradient mode the caller has."""

from __future__ import annotations

from pathlib import Path

import torch

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.image_sets.opening import open_image_set
from d3hr_datasets.image_sets.real_images import load_images
from tests.support.tiny_students import CLASSES


def test_images_are_opened_the_same(real: Path, tmp_path: Path) -> None:
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.save({"images": (images - 0.5) / 0.25, "labels": torch.arange(6) % 3}, tmp_path / "set.pt")

    classes = ClassList(tuple(CLASSES))

    def opened() -> list[torch.Tensor]:
        sets = [
            open_image_set(tmp_path / "set.pt", classes, 3, normalized=([0.5] * 3, [0.25] * 3)),
            open_image_set(real / "train", classes, 3),
        ]
        read = [found.images[index][0] for found in sets for index in range(len(found.images))]
        return [*read, load_images(str(real / "train"), "train", 12, 3)[0]]

    plain = opened()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            other = opened()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert len(plain) == 6 + 12 + 1 and all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))
    assert {tensor.dtype for tensor in other} == {torch.uint8}
