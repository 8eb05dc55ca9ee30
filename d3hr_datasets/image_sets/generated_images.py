"""Images that a diffusion model makes, as tensors: of a distilled set, of images through the VAE, of noise.

In: a data set, a model. Out: uint8 (N, C, H, W), and labels int64 (N,).
"""

from __future__ import annotations

import numpy as np
import torch

from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.config.timesteps import timestep_grid
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_model_range, to_pil
from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def dataset_tensors(dataset: D3HRDataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of a data set as uint8 (N, C, H, W) and its labels, generated if needed."""
    dataset.materialize(progress=False)
    images = np.stack([np.asarray(dataset[index][0]) for index in range(len(dataset))])
    tensor = torch.from_numpy(images)
    tensor = tensor[:, None] if tensor.dim() == 3 else tensor.permute(0, 3, 1, 2)
    return tensor, torch.as_tensor(dataset.targets)


@neutral()
def reconstruct(model: LatentDiffusion, images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images (N, 1, S, S) after encoding and decoding, as uint8."""
    padding = (model.sample_size - images.shape[-1]) // 2
    parts = []
    for batch in images.split(100):
        decoded = model.decode(model.encode(to_model_range(batch, padding)))
        parts.append(torch.from_numpy(np.stack([np.asarray(image) for image in to_pil(decoded, padding)])))
    return torch.cat(parts)[:, None]


@neutral()
def raw_samples(
    dataset: D3HRDataset, model: LatentDiffusion, ipc: int, seed: int, guidance_scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the diffusion model makes of pure noise, without any statistics: the baseline.

    Denoising runs over the whole grid of `dataset`, from its noisiest timestep.
    """
    info, steps = dataset.artifact.info, dataset.decode.num_inference_steps
    top = timestep_grid(steps, info.inversion.num_train_timesteps)[-1]
    labels = torch.arange(len(info.classes)).repeat_interleave(ipc)
    noise = torch.randn(len(labels), *info.latent_shape, generator=torch.Generator().manual_seed(seed))
    decode = DecodeConfig(timestep=top, num_inference_steps=steps, guidance_scale=guidance_scale)
    images = to_pil(model.decode(model.denoise(noise, labels, decode)), info.padding)
    return torch.from_numpy(np.stack([np.asarray(image) for image in images]))[:, None], labels
