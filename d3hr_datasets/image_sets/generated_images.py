"""Images that a diffusion model makes, as tensors: of a distilled set, of images through the VAE, of noise.

In: a data set, a model. Out: uint8 (N, C, H, W), and labels int64 (N,).
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.diffusion.grid_times import grid_times
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_model_range, to_pil
from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def dataset_tensors(dataset: D3HRDataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of a data set as uint8 (N, C, H, W) and its labels, generated if needed."""
    dataset.materialize(progress=False)
    images = [dataset[index][0] for index in range(len(dataset))]
    return _to_tensor(images), torch.as_tensor(dataset.targets)


class FreshImages(Dataset[tuple[torch.Tensor | Image.Image, int]]):
    """Generated images of which there is another group every few passes: uint8 (C, H, W), or PIL images.

    Tensors if the data set keeps its images in memory.

    Args:
        dataset: The set, with `resample="epoch"`: an epoch of it is a group.
        every: Passes over the images after which another group is taken.
        passes: How many there will be, so that no group is generated for later ones; 0 if nobody knows.
    """

    def __init__(self, dataset: D3HRDataset, every: int, passes: int) -> None:
        self._dataset, self._every = dataset, every
        self._group: int | None = None
        self._last = (passes - 1) // every if passes else None
        self.targets: list[int] = list(dataset.targets)
        self.classes = dataset.classes

    def set_epoch(self, epoch: int) -> None:
        """Take the group of a pass over the images."""
        group = epoch // self._every
        if group != self._group:
            self._dataset.set_epoch(group, prepare_next=self._last is None or group < self._last)
            self._group = group

    def close(self) -> None:
        """Remove the images of all groups but the first, where nobody else uses them."""
        self._dataset.close()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor | Image.Image, int]:
        image, label = self._dataset[index]
        return _to_tensor([image])[0] if self._dataset.in_memory else image, label


@neutral()
def reconstruct(model: LatentDiffusion, images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images (N, C, S, S) after encoding and decoding, as uint8."""
    padding = (model.sample_size - images.shape[-1]) // 2
    parts = []
    for batch in images.split(100):
        decoded = model.decode(model.encode(to_model_range(batch, padding)))
        parts.append(_to_tensor(to_pil(decoded, padding)))
    return torch.cat(parts)


@neutral()
def raw_samples(
    dataset: D3HRDataset, model: LatentDiffusion, ipc: int, seed: int, guidance_scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the diffusion model makes of pure noise, without any statistics: the baseline.

    Images are of the classes of `dataset`, and labels its own. Denoising runs by DDIM over the whole grid of
    `dataset`, or of its artifact, from the noisiest time that has something of an image.
    """
    info = dataset.artifact.info
    steps = dataset.decode.num_inference_steps or info.inversion.num_inference_steps
    grid = dataset.decode.grid
    top = grid_times(model.schedule, steps, grid)[-1]
    labels = torch.arange(len(dataset.class_labels)).repeat_interleave(ipc)
    noise = torch.randn(len(labels), *info.latent_shape, generator=torch.Generator().manual_seed(seed))
    decode = DecodeConfig(top, steps, guidance_scale, grid=grid)
    of_model = dataset.class_labels[labels]
    images = to_pil(model.decode(model.denoise(noise, of_model, decode)), info.padding)
    return _to_tensor(images), labels


def _to_tensor(images: list[Image.Image]) -> torch.Tensor:
    tensor = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return tensor[:, None] if tensor.dim() == 3 else tensor.permute(0, 3, 1, 2)
