"""Tiny diffusion models and artifacts of three classes, with random weights, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from PIL import Image

from d3hr_datasets import (
    Artifact,
    ArtifactInfo,
    ClassGaussians,
    DecodeConfig,
    InversionConfig,
    ModelReference,
)
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion

CLASSES = ("ant", "bee/wasp", "cat")
IMAGE_SIZE, PADDING = 14, 1
TIMESTEPS = (-1, 200, 400)


def tiny_pipeline(
    channels: int = 1, num_classes: int = 3, learned_sigma: bool = False, prediction_type: str = "epsilon"
) -> DiTPipeline:
    """Return a pipeline of random weights: (3, 4, 4) latents of 16 x 16 images."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=3,
        out_channels=6 if learned_sigma else 3,
        num_layers=2,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=num_classes,
    )
    for parameter in transformer.parameters():  # DiT starts with zeros in many places: fill them
        torch.nn.init.normal_(parameter, std=0.1)
    vae = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=3,
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.7,
    )
    scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False, prediction_type=prediction_type)
    return DiTPipeline(transformer, vae, scheduler)


def tiny_model(**options: Any) -> LatentDiffusion:
    """Return `tiny_pipeline` as this library's model, on the CPU."""
    pipeline = tiny_pipeline(**options)
    return LatentDiffusion(pipeline.transformer, pipeline.vae, pipeline.scheduler, device="cpu")


class TinyImages:
    """Twelve grey images of 14 x 14 noise around a brightness of their own class, of three classes."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if not 0 <= index < 12:
            raise IndexError(index)
        label = index % 3
        generator = torch.Generator().manual_seed(index)
        noise = torch.randint(0, 80, (IMAGE_SIZE, IMAGE_SIZE), generator=generator) + 60 * label
        return Image.fromarray(noise.to(torch.uint8).numpy()), label


def tiny_info(**changes: Any) -> ArtifactInfo:
    """Return the description of the tiny artifact."""
    values: dict[str, Any] = {
        "name": "tiny",
        "classes": CLASSES,
        "image_size": IMAGE_SIZE,
        "image_mode": "L",
        "padding": PADDING,
        "latent_shape": (3, 4, 4),
        "model": ModelReference(path="model"),
        "counts": (4, 4, 4),
        "inversion": InversionConfig(timesteps=TIMESTEPS, num_inference_steps=10),
        "decode": DecodeConfig(timestep=400, num_inference_steps=10, guidance_scale=2.0),
    }
    return ArtifactInfo(**{**values, **changes})


def save_tiny_artifact(folder: Path, work: Path) -> Artifact:
    """Build a tiny artifact with its model inside, as the embedded default is built."""
    tiny_pipeline().save_pretrained(folder / "model")
    model = LatentDiffusion.from_pretrained(folder / "model", device="cpu")
    return build_artifact(
        TinyImages(), model, folder, tiny_info(), work, batch_size=5, chunk_size=7, progress=False
    )


def save_untrained_artifact(folder: Path, name: str, class_list: ClassList) -> Artifact:
    """Save an artifact of any classes, 16 x 16 RGB images, whose Gaussians and model nobody trained."""
    names = class_list.names
    tiny_pipeline(channels=3, num_classes=len(names)).save_pretrained(folder / "model")
    generator = torch.Generator().manual_seed(0)
    shape = (len(names), 3, 4, 4)
    gaussians = ClassGaussians(
        torch.randn(shape, generator=generator),
        torch.rand(shape, generator=generator),
        torch.full((len(names),), 2),
    )
    info = tiny_info(
        name=name,
        classes=names,
        wnids=class_list.wnids,
        counts=(2,) * len(names),
        image_size=16,
        image_mode="RGB",
        padding=0,
        inversion=InversionConfig(timesteps=(400,), num_inference_steps=10),
    )
    return Artifact.save(folder, info, {400: gaussians})
