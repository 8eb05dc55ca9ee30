"""Pixels of any format -> what a student takes, or an error that names the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d3hr_datasets.errors import SourceError, UnreadableImageError
from d3hr_datasets.image_sets import checked_images
from d3hr_datasets.image_sets.opening import open_image_set
from d3hr_datasets.image_sets.pixel_format import pil_to_pixels, tensor_to_uint8
from d3hr_datasets.students.convnet import ConvNet
from tests.image_sets.making import REAL, grey, levels, save_folder

NAMES = ["T-shirt_top", "Dress", "Ankle boot"]


def palette(transparent: bool = False) -> Image.Image:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    if transparent:
        image.info["transparency"] = 1
    return image


def of_16_bits(level: int) -> Image.Image:
    return Image.fromarray(np.full((2, 2), level, np.uint16))


@pytest.mark.parametrize(
    ("image", "channels", "expected"),
    [
        (grey(7), 1, [7]),
        (grey(7), 3, [7, 7, 7]),
        (Image.new("RGB", (2, 2), (9, 9, 9)), 1, [9]),
        (Image.new("RGB", (2, 2), (1, 2, 3)), 3, [1, 2, 3]),
        (Image.new("1", (2, 2), 1), 1, [255]),
        (Image.new("LA", (2, 2), (5, 255)), 1, [5]),
        (Image.new("RGBA", (2, 2), (1, 2, 3, 255)), 3, [1, 2, 3]),
        (palette(), 3, [200, 100, 50]),
        (of_16_bits(200), 1, [200]),
        (Image.new("I", (2, 2), 200), 3, [200, 200, 200]),
        (Image.new("CMYK", (2, 2), (0, 0, 0, 0)), 3, [255, 255, 255]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_what_loses_nothing_is_converted(image: Image.Image, channels: int, expected: list[int]) -> None:
    pixels = pil_to_pixels(image, channels, "image 0")
    assert pixels.dtype == torch.uint8 and pixels.shape == (channels, image.height, image.width)
    assert pixels[:, 0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (2, 2), (1, 2, 3)), "image 5 is coloured.*one channel"),
        (palette(), "image 5 is coloured"),
        (Image.new("RGBA", (2, 2), (1, 1, 1, 254)), "image 5 is transparent in places .alpha 254"),
        (Image.new("LA", (2, 2), (1, 0)), "image 5 is transparent"),
        (palette(transparent=True), "image 5 is transparent"),
        (of_16_bits(256), "image 5 has more than 8 bits per channel"),
        (Image.new("I", (2, 2), -1), "image 5 has more than 8 bits per channel"),
        (Image.new("F", (2, 2), 0.5), "image 5 has more than 8 bits per channel"),
    ],
)
def test_what_loses_something_is_refused(image: Image.Image, message: str) -> None:
    with pytest.raises(UnreadableImageError, match=message):
        pil_to_pixels(image, 1, "image 5")


def test_a_folder_of_grey_images_fits_a_student_of_one_channel(tmp_path: Path) -> None:
    images = open_image_set(save_folder(tmp_path / "set", NAMES, [grey(9, 8)] * 3), REAL, 1).images
    student = ConvNet(num_classes=3, in_chans=1, img_size=8, depth=1, width=4)
    batch = torch.stack([images[index][0] for index in range(3)]).float()
    assert student(batch).shape == (3, 3)


def test_a_coloured_image_is_named_before_training(tmp_path: Path) -> None:
    images = [grey(1), Image.new("RGB", (4, 4), (1, 2, 3)), grey(2)]
    with pytest.raises(UnreadableImageError, match=r"Dress/0\.png.*is coloured"):
        open_image_set(save_folder(tmp_path / "set", NAMES, images), REAL, 1)


def test_a_damaged_image_is_named_before_training(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "set", NAMES)
    (folder / "Ankle boot" / "0.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"Ankle boot/0\.png.*cannot be read.*Mend or remove it"):
        open_image_set(folder, REAL, 1)


def test_other_sizes_are_noted_and_kept(tmp_path: Path) -> None:
    images = [grey(1, 4), grey(2, 4), grey(3, 6)]
    found = open_image_set(save_folder(tmp_path / "set", NAMES, images), REAL, 3, image_size=8)
    shapes = [found.images[index][0].shape for index in range(3)]
    assert sorted(map(tuple, shapes)) == [(3, 4, 4), (3, 4, 4), (3, 6, 6)]
    assert any("2 size(s), 4 x 4, 6 x 6" in note and "to 8 x 8" in note for note in found.notes)
    assert open_image_set(save_folder(tmp_path / "other", NAMES), REAL, 3, image_size=4).notes == ()


def test_unequal_classes_are_noted(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "set", NAMES)
    grey(1).save(folder / "Dress" / "1.png")
    assert open_image_set(folder, REAL, 1).notes == ("classes have 1 to 2 images",)


@pytest.mark.parametrize("bound", ["MAX_IN_MEMORY", "MAX_BYTES_IN_MEMORY"])
def test_a_large_set_is_read_again_and_is_the_same(
    bound: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_folder(tmp_path / "set", NAMES)
    in_memory = open_image_set(folder, REAL, 3)
    monkeypatch.setattr(checked_images, bound, 2)
    from_disk = open_image_set(folder, REAL, 3)
    assert isinstance(from_disk.images, checked_images.CheckedImages)
    assert from_disk.images.stacked() is None
    assert levels(from_disk) == levels(in_memory) == {0: [10], 1: [20], 2: [30]}
    (folder / "Dress" / "0.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"Dress/0\.png"):
        levels(from_disk)


def test_floats_are_rounded_to_8_bits() -> None:
    images = torch.tensor([0.0, 1.4 / 255, 1.6 / 255, 1.0]).reshape(1, 1, 2, 2)
    pixels, notes = tensor_to_uint8(images, "set.pt")
    assert pixels.flatten().tolist() == [0, 1, 2, 255] and pixels.dtype == torch.uint8
    assert notes == ("float images were rounded to 8 bits",)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((2, 1, 2, 2), 1.5), r"\[1\.5, 1\.5\]; accepted: \[0, 1\].*mean and std.*normalized"),
        (torch.full((2, 1, 2, 2), -0.1), r"\[-0\.1, -0\.1\]"),
        (torch.tensor([0.0, float("nan")]).reshape(2, 1, 1, 1), "image 1 has values that are NaN"),
        (torch.tensor([float("inf"), 0.0]).reshape(2, 1, 1, 1), "image 0 has values that are NaN or inf"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.int64), "images of torch.int64; accepted: uint8"),
    ],
)
def test_other_tensors_are_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        tensor_to_uint8(images, "set.pt")


def test_normalised_images_are_given_back() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, -1, -1)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    per_channel = [torch.tensor(values)[:, None, None] for values in (mean, std)]
    normalised = (images / 255 - per_channel[0]) / per_channel[1]
    normalised[0, 0, 0, 0] = -9.0
    pixels, notes = tensor_to_uint8(normalised, "set.pt", (mean, std))
    assert torch.equal(pixels, images)  # the value that was clamped is 0, too
    assert "1 of 768 values clamped" in notes[0]


@pytest.mark.parametrize(
    ("normalization", "message"),
    [
        (([0.9], [0.9]), r"100\.0% of the values are outside.*mean and std"),
        (([0.5] * 3, [0.5] * 3), "images of 1 channels, mean and std have 3 and 3"),
    ],
)
def test_another_normalisation_is_refused(
    normalization: tuple[list[float], list[float]], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        tensor_to_uint8(torch.full((1, 1, 2, 2), 1.0), "set.pt", normalization)


def test_what_is_no_float_tensor_is_not_normalised(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="uint8 images, which are not normalised"):
        tensor_to_uint8(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "set.pt", ([0.5], [0.5]))
    with pytest.raises(SourceError, match="normalized is for files of tensors"):
        open_image_set(save_folder(tmp_path / "set", NAMES), REAL, 1, normalized=([0.5], [0.5]))
