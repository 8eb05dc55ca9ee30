"""Model outputs -> PIL images: range, frame, colours, and what is no picture."""

from __future__ import annotations

import pytest
import torch

from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.errors import (
    ModelFormatError,
)


def test_to_pil_maps_the_range_and_takes_the_frame_off() -> None:
    images = torch.full((1, 1, 4, 5), -1.0)
    images[0, 0, 1, 1:4] = torch.tensor([1.0, 0.2, -1.5])
    (image,) = to_pil(images[..., :4], padding=1)
    assert image.mode == "L" and image.size == (2, 2)
    assert list(image.tobytes()) == [255, 153, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_to_pil_makes_colour_images(dtype: torch.dtype) -> None:
    images = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1).expand(2, 3, 6, 6).to(dtype)
    found = to_pil(images)
    assert [(image.mode, image.size) for image in found] == [("RGB", (6, 6))] * 2
    assert found[1].getpixel((3, 3)) == (255, 0, 128)


def test_pixels_that_are_not_finite_are_refused() -> None:
    images = torch.zeros(2, 1, 4, 4)
    images[1, 0, 2, 2] = float("nan")
    with pytest.raises(ModelFormatError, match="float32"):
        to_pil(images)
