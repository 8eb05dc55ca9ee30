"""Measure what storing weights in half precision costs: the same latents, denoised and decoded twice.

    python -m recipes.evaluate.precision

Needs the run folders of both trainings. The DiT is that of the last checkpoint, which is a few minutes
older than the final weights. Writes `hub/results/precision.json`.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

from d3hr_datasets import D3HRDataset
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from recipes.common.prerequisites import need, need_artifact, training_of
from recipes.common.program import program
from recipes.common.results import write_results


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="hub/d3hr-fashion-mnist")
    parser.add_argument("--vae", type=Path, default=Path("runs/vae-fashion-mnist/vae"))
    parser.add_argument("--dit", type=Path, default=Path("runs/dit-fashion-mnist"))
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--output", default="hub/results/precision.json")
    arguments = parser.parse_args()
    need(arguments.vae, training_of(arguments.vae.parent, "train.vae"))
    for part in ("model", "checkpoint.pt"):
        need(arguments.dit / part, training_of(arguments.dit, "train.diffusion"))
    need_artifact(arguments.artifact)
    transformer = DiTTransformer2DModel.from_pretrained(arguments.dit / "model", subfolder="transformer")
    state = torch.load(arguments.dit / "checkpoint.pt", weights_only=True)
    transformer.load_state_dict(state["average"])
    vae = AutoencoderKL.from_pretrained(arguments.vae)
    scheduler = DDIMScheduler.from_pretrained(arguments.dit / "model", subfolder="scheduler")
    dataset = D3HRDataset(arguments.artifact, ipc=arguments.ipc)
    latents = torch.cat([dataset.sample_latents(label) for label in range(len(dataset.classes))])
    labels = dataset.class_labels.repeat_interleave(arguments.ipc)
    images = []
    for half in (False, True):
        parts = [copy.deepcopy(part) for part in (transformer, vae)]
        if half:
            parts = [part.half().float() for part in parts]
        model = LatentDiffusion(parts[0], parts[1], scheduler)
        images.append(model.decode(model.denoise(latents, labels, dataset.decode)).cpu())
    difference = (images[0] - images[1]) * 127.5
    results = {
        "images": len(labels),
        "mean_absolute_difference_of_255": difference.abs().mean().item(),
        "largest_difference_of_255": difference.abs().max().item(),
        "psnr_db": 10 * (255**2 / difference.square().mean()).log10().item(),
    }
    settings = {"vae": str(arguments.vae), "dit": str(arguments.dit), "step": state["step"]}
    write_results(arguments.output, settings, results)
    print(results)


if __name__ == "__main__":
    main()
