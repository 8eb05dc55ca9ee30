"""An epoch of a DataLoader over the cache, next to torchvision's `ImageFolder` on the same files.

`TensorDataset` has the same images in memory as tensors, and no transform: what the DataLoader itself takes.
`in_memory="tensor"` is to be compared with it: both give the loader's own batches of tensors.
Times are those of this process's CPU: what other processes do does not change them, and
files are in the page cache. What is measured is any epoch but the first: in that, each image's checksum is
computed.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from d3hr_datasets import D3HRFashionMNIST
from d3hr_datasets.cache.image_cache import CLOCK_SECONDS

SIZES = {"28 grey": ("L", 28, 50), "256 colour": ("RGB", 256, 10)}


def _images(mode: str, side: int, count: int) -> list[Image.Image]:
    """Return smooth noise, which PNG compresses about as well as photographs."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 16, 16, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear")
    images: list[Image.Image] = [to_pil_image(image).convert(mode) for image in fine]
    return images


@pytest.fixture(scope="module", params=SIZES)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> D3HRFashionMNIST:
    """Return a set of ten classes whose cached images are those of `_images`."""
    mode, side, count = SIZES[request.param]
    dataset = D3HRFashionMNIST(tmp_path_factory.mktemp("cache"), count)
    for label in range(10):
        dataset.cache.ensure(label, lambda: _images(mode, side, count))
    time.sleep(CLOCK_SECONDS)  # of younger files the checksum is computed again and again
    return dataset


@pytest.mark.parametrize("transform", [None, pil_to_tensor], ids=["images", "tensors"])
@pytest.mark.parametrize("reader", ["ImageFolder", "cache", "in_memory", "in_memory tensor", "TensorDataset"])
def test_epoch(reader: str, transform: Any, filled: D3HRFashionMNIST, benchmark: Any) -> None:
    has_tensors = reader in {"in_memory tensor", "TensorDataset"}
    if has_tensors and transform is None:
        pytest.skip("it has no images")
    root = Path(filled.root)
    readers: dict[str, Any] = {
        "ImageFolder": partial(ImageFolder, str(filled.image_folder)),
        "cache": partial(D3HRFashionMNIST, root, filled.ipc),
        "in_memory": partial(D3HRFashionMNIST, root, filled.ipc, in_memory=True),
        "in_memory tensor": partial(D3HRFashionMNIST, root, filled.ipc, in_memory="tensor"),
        "TensorDataset": lambda: TensorDataset(
            torch.stack([pil_to_tensor(filled[index][0]) for index in range(len(filled))]),
            torch.as_tensor(filled.targets),
        ),
    }
    dataset = readers[reader]()
    dataset.transform = None if has_tensors else transform
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=50, collate_fn=None if transform else list)
    benchmark._timer = time.process_time
    benchmark.group = f"epoch of {'tensors' if transform else 'images'} of {filled[0][0].size[0]}"
    benchmark.extra_info.update(way=reader, baseline="ImageFolder", images=len(dataset))
    batches = benchmark.pedantic(lambda: sum(1 for _ in loader), rounds=40, warmup_rounds=2)
    assert batches == len(loader)
