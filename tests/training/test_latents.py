"""Latents are encoded once, into files that are read where a batch needs them; and the images before that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision import datasets

from d3hr_datasets.errors import ConfigError, SourceError, UnreadableImageError
from d3hr_datasets.image_sets.real_images import load_images
from d3hr_datasets.training import latents as module
from d3hr_datasets.training.base_model import open_base
from d3hr_datasets.training.diffusion import train_diffusion, training_accelerator
from d3hr_datasets.training.images import TrainingImages, open_training_images
from d3hr_datasets.training.latents import EncodedVAE, Latents, encoded_latents
from tests.training.tiny_training import CLASSES, tiny_settings, weights_of, write_inputs


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_inputs(tmp_path)
    return tmp_path


def opened(inputs: Path) -> tuple[TrainingImages, EncodedVAE]:
    vae = open_base(tiny_settings(inputs, inputs / "run")).vae
    return open_training_images(str(inputs / "images"), "train+held-out", 14, 3), vae


def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put eight images into each file."""
    monkeypatch.setattr(module, "BYTES_OF_A_SHARD", 8 * 4 * 4 * 4 * 4)
    monkeypatch.setattr(module, "BATCH", 4)


def encode(inputs: Path, images: TrainingImages, vae: EncodedVAE) -> Latents:
    return encoded_latents(images, vae, inputs / "latents", "all", training_accelerator())


def test_files_hold_what_the_vae_makes(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, vae = opened(inputs)
    whole = encode(inputs, images, vae)
    assert whole.shape == (4, 4, 4) and len(whole) == 24 and whole.classes == CLASSES
    pixels, labels = images.batch(range(24))
    expected = vae.encode(pixels, torch.device("cpu")) * vae.module.config.scaling_factor
    assert torch.equal(whole.values(torch.arange(24)), expected) and torch.equal(whole.labels, labels)
    small_shards(monkeypatch)
    parts = encode(inputs, images, vae)
    assert parts.rows == 8
    names = sorted(path.name[-26:] for path in (inputs / "latents").iterdir())
    assert names[1:] == [f"0000{i}-of-00003.safetensors" for i in range(3)]
    index = torch.tensor([23, 0, 8, 7, 7])
    torch.testing.assert_close(parts.values(index), whole.values(index), rtol=1e-5, atol=1e-6)
    assert torch.equal(parts.labels, whole.labels)


def test_what_is_there_is_not_encoded_again(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    images, vae = opened(inputs)
    written: list[str] = []
    write = module._write

    def note(path: Path, *arguments: Any) -> None:
        if len(written) == 1 and not (inputs / "interrupted").exists():
            (inputs / "interrupted").touch()
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, *arguments)

    monkeypatch.setattr(module, "_write", note)
    with pytest.raises(KeyboardInterrupt):
        encode(inputs, images, vae)
    first = encode(inputs, images, vae)
    assert len(written) == len(set(written)) == 3
    again = encode(inputs, images, vae)
    assert len(written) == 3 and torch.equal(again.labels, first.labels)
    (inputs / "images" / "ant" / "0.png").unlink()  # other images have files of their own
    others = encode(inputs, opened(inputs)[0], vae)
    assert len(others) == 23 and len(written) == 6


def test_a_training_does_not_depend_on_files(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights_of(train_diffusion(tiny_settings(inputs, inputs / "whole")))
    small_shards(monkeypatch)
    parts = weights_of(train_diffusion(tiny_settings(inputs, inputs / "parts")))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-3)
    near = weights_of(train_diffusion(tiny_settings(inputs, inputs / "near", shards_at_once=1)))
    assert any((near[name] - tensor).abs().max() > 1e-3 for name, tensor in whole.items())


@pytest.mark.parametrize("split", ["train", "held-out", "train+held-out"])
def test_a_folder_is_split_as_it_always_was(split: str, image_folder: Path) -> None:
    pixels, targets, names = load_images(str(image_folder), split, 14, 3)
    images = open_training_images(str(image_folder), split, 14, 3)
    found, labels = images.batch(range(images.num_images))
    assert torch.equal(found, pixels) and torch.equal(labels, targets) and list(images.classes) == names
    assert images.identity == open_training_images(str(image_folder), split, 14, 3).identity


def test_sets_of_torchvision_have_a_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tiny(datasets.VisionDataset):  # type: ignore[type-arg]
        def __init__(self, root: str, train: bool = True) -> None:
            super().__init__(root)
            self.targets = [0, 1, 2] * (4 if train else 1)
            self.classes = ["ant", "bee", "cat"]

        def __len__(self) -> int:
            return len(self.targets)

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.new("L", (20, 20), 10 * index), self.targets[index]

    monkeypatch.setattr(datasets, "Tiny", Tiny, raising=False)
    source = f"torchvision:Tiny:{tmp_path}"
    counts = {
        split: open_training_images(source, split, 14, 1).num_images
        for split in ("train", "held-out", "train+held-out", "test")
    }
    assert counts == {"train": 10, "held-out": 2, "train+held-out": 12, "test": 3}
    held_out = open_training_images(source, "held-out", 14, 1)
    numbers = [int(held_out.read(i)[0][0, 0, 0]) // 10 for i in range(2)]
    rest = open_training_images(source, "train", 14, 1)
    assert sorted(numbers + [int(rest.read(i)[0][0, 0, 0]) // 10 for i in range(10)]) == list(range(12))


def test_images_that_cannot_be_used_are_named(tmp_path: Path, image_folder: Path) -> None:
    with pytest.raises(SourceError, match="there is no folder"):
        open_training_images(str(tmp_path / "none"), "train", 14, 3)
    (image_folder / "red" / "0.png").write_bytes(b"no image")
    images = open_training_images(str(image_folder), "train+held-out", 14, 3)
    with pytest.raises(UnreadableImageError, match=r"red/0\.png"):
        images.batch(range(images.num_images))
    wrong = TrainingImages(1, ("ant",), "", lambda number: (torch.zeros(3, 2, 2, dtype=torch.uint8), 1))
    with pytest.raises(ConfigError, match="class label 1; accepted: 0 to 0"):
        wrong.batch([0])
