"""Build from synthetic images with a small model of random weights, and print the peak of memory as JSON.

    python -m recipes.evaluate.build_once NUMBER

A process of its own for each number of images: `recipes.evaluate.build_memory` starts them.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel
from PIL import Image

from d3hr_datasets import ArtifactInfo, DecodeConfig, InversionConfig, ModelReference
from d3hr_datasets.build import build_artifact
from d3hr_datasets.diffusion import LatentDiffusion

CLASSES = tuple("0123456789")


class SyntheticImages:
    """Grey images, each of one brightness, of ten classes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("L", (16, 16), index % 256), index % len(CLASSES)


def small_model() -> LatentDiffusion:
    """Return a model of (4, 8, 8) latents of 16 x 16 images."""
    transformer = DiTTransformer2DModel(
        num_attention_heads=1,
        attention_head_dim=8,
        in_channels=4,
        num_layers=1,
        sample_size=8,
        patch_size=4,
        num_embeds_ada_norm=len(CLASSES),
    )
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=4,
        block_out_channels=(4, 4),
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return LatentDiffusion(transformer, vae, DDIMScheduler(clip_sample=False), device="cpu")


def measure(number: int) -> dict[str, float]:
    """Build from so many images; return the peak of this process before and after in MiB, and the time."""
    torch.set_num_threads(1)
    model = small_model()
    info = ArtifactInfo(
        name="memory",
        classes=CLASSES,
        image_size=16,
        image_mode="L",
        padding=0,
        latent_shape=(4, 8, 8),
        model=ModelReference(path="model"),
        inversion=InversionConfig((200,), num_inference_steps=5),
        decode=DecodeConfig(200, 5),
    )
    before, begin = _peak(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        output, work = Path(folder) / "artifact", Path(folder) / "work"
        build_artifact(SyntheticImages(number), model, output, info, work, chunk_size=500, progress=False)
    return {
        "images": number,
        "peak_mib": _peak(),
        "before_mib": before,
        "seconds": time.perf_counter() - begin,
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
