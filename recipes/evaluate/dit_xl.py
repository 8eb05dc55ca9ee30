"""Load a model of the size of DiT-XL/2 and make one image with it: what it costs in time and memory.

    python -m recipes.evaluate.dit_xl --work FOLDER

Writes a model of random weights in the layout of `facebook/DiT-XL-2-256` (half precision; the paper's 675
million parameters are 750 million there, since diffusers embeds timestep and class in every block) and an
artifact of ImageNet's classes with it inside to FOLDER (1.6 GB), opens both as `D3HRImageNet` in a new
process, and removes them.
The image is noise; what is measured does not depend on what the weights were trained for. Writes
`hub/results/dit_xl.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

from d3hr_datasets import (
    Artifact,
    ArtifactInfo,
    ClassGaussians,
    DecodeConfig,
    InversionConfig,
    ModelReference,
)
from d3hr_datasets.classes.class_list import ClassList
from recipes.common.program import program
from recipes.common.results import write_results

NUM_CLASSES, LATENT_SHAPE = 1000, (4, 32, 32)
STATISTICS_TIMESTEP = 600
ROOT = Path(__file__).resolve().parents[2]  # where a process finds the recipes


def make_transformer(**changes: Any) -> DiTTransformer2DModel:
    """Return a DiT-XL/2 in half precision, with small random weights where an untrained one has zeros."""
    config: dict[str, Any] = {
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "dropout": 0.0,
        "norm_num_groups": 32,
        "attention_bias": True,
        "sample_size": 32,
        "patch_size": 2,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": NUM_CLASSES,
        "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False,
    }
    transformer = DiTTransformer2DModel(**{**config, **changes})
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return transformer.half()


def make_vae(**changes: Any) -> AutoencoderKL:
    """Return a VAE of the architecture of Stable Diffusion's, which DiT uses (`sd-vae-ft-ema`)."""
    config: dict[str, Any] = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "act_fn": "silu",
        "latent_channels": 4,
        "norm_num_groups": 32,
        "sample_size": 256,
        "scaling_factor": 0.18215,
    }
    return AutoencoderKL(**{**config, **changes}).half()


def write_artifact(folder: Path, transformer: DiTTransformer2DModel, vae: AutoencoderKL) -> Artifact:
    """Write the model, and an artifact of unit Gaussians for it."""
    scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    DiTPipeline(transformer, vae, scheduler).save_pretrained(folder / "model")
    classes = ClassList.packaged("imagenet")
    info = ArtifactInfo(
        name="dit-xl",
        classes=classes.names,
        wnids=classes.wnids,
        image_size=256,
        image_mode="RGB",
        padding=0,
        latent_shape=LATENT_SHAPE,
        model=ModelReference(path="model"),
        inversion=InversionConfig(timesteps=(STATISTICS_TIMESTEP,)),
        decode=DecodeConfig(timestep=STATISTICS_TIMESTEP),
        counts=(2,) * NUM_CLASSES,
        source={"name": "none: unit Gaussians and random weights"},
    )
    shape = (NUM_CLASSES, *LATENT_SHAPE)
    gaussians = ClassGaussians(torch.zeros(shape), torch.ones(shape), torch.full((NUM_CLASSES,), 2))
    return Artifact.save(folder, info, {STATISTICS_TIMESTEP: gaussians})


def use(folder: Path, root: Path, steps: int, dtype: str) -> dict[str, Any]:
    """Read one image of the artifact in a new process."""
    arguments = [str(folder), str(root), str(STATISTICS_TIMESTEP), str(steps), dtype]
    result = subprocess.run(
        [sys.executable, "-m", "recipes.evaluate.generate_once", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    values: dict[str, Any] = json.loads(result.stdout)
    evaluations = 1 + STATISTICS_TIMESTEP // (1000 // steps)  # from t = 600 down to t = 0
    values["model_evaluations"] = evaluations
    values["seconds_per_evaluation"] = values["image_seconds"] / evaluations
    return values


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="a folder with 2 GB of free space")
    parser.add_argument("--steps", type=int, default=50, help="steps of the DDIM grid")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--output", default="hub/results/dit_xl.json")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.work) as temporary:
        folder, started = Path(temporary) / "dit-xl", time.perf_counter()
        write_artifact(folder, make_transformer(), make_vae())
        results = {"write_seconds": time.perf_counter() - started}
        results |= use(folder, folder / "cache", arguments.steps, arguments.dtype)
    settings = {key: value for key, value in vars(arguments).items() if key != "work"}
    write_results(arguments.output, settings, results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
