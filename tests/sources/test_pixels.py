"""An image becomes the pixels that are encoded: cropped, converted and framed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.sources.opening import SourceOptions, open_source
from d3hr_datasets.sources.relabel import relabel
from d3hr_datasets.sources.resizing import resize_and_crop
from tests.support.tiny import tiny_info, tiny_model


def test_small_images_are_framed_without_resizing() -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    cropped = resize_and_crop(Image.fromarray(pixels), 4, "L")
    assert cropped.dtype == torch.uint8 and np.array_equal(cropped[0].numpy(), pixels)
    found = to_model_range(cropped, 2)
    assert found.shape == (1, 8, 8) and found.dtype == torch.float32
    expected = torch.full((1, 8, 8), -1.0)
    expected[0, 2:6, 2:6] = torch.from_numpy(pixels / 127.5 - 1)
    torch.testing.assert_close(found, expected)
    assert found.min() == -1 and found.max() == 1


@pytest.mark.parametrize(("size", "seen"), [((40, 20), (10, 30)), ((20, 20), (0, 20)), ((80, 40), (20, 60))])
def test_centre_of_the_shorter_side_is_kept(size: tuple[int, int], seen: tuple[int, int]) -> None:
    """A ramp from left to right tells which columns are kept."""
    width, height = size
    ramp = np.tile(np.linspace(0, 255, width), (height, 1)).astype(np.uint8)
    for image, dim in ((Image.fromarray(ramp), 0), (Image.fromarray(ramp.T.copy()), 1)):
        found = resize_and_crop(image, 20, "L")[0].double().mean(dim=dim)
        first, last = (255 * edge / width for edge in seen)
        assert found.shape == (20,)
        assert float(found[0]) == pytest.approx(first, abs=8) and float(found[-1]) == pytest.approx(
            last, abs=8
        )


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "LA"])
def test_images_of_any_mode_are_converted(mode: str) -> None:
    image = Image.new("RGB", (6, 6), (255, 255, 255)).convert(mode)
    for wanted, channels in (("L", 1), ("RGB", 3)):
        found = resize_and_crop(image, 4, wanted)
        assert found.shape == (channels, 4, 4) and (found > 248).all()


def test_images_of_sixteen_bits_are_not_clipped(image_folder: Path) -> None:
    Image.fromarray(np.full((14, 14), 300, dtype=np.uint16)).save(image_folder / "ant" / "00.png")
    source = relabel(open_source(str(image_folder), SourceOptions()).images, {0: 0, 1: 1, 2: 2})
    with pytest.raises(ValueError, match=r"ant/00\.png.*8 bits per channel"):
        build_artifact(source, tiny_model(), image_folder / "out", tiny_info(), image_folder.parent / "work")
