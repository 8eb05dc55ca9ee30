"""Make images by a model whose steps were distilled: folders of images for students.

    python -m recipes.build.distilled_steps

`recipes.train.step_distillation` makes the model. Images are those of the artifact's groups of the same
seeds, decoded in one forward pass or two instead of eight. The table
`recipes/configs/tables/selection-distilled-steps.yaml` trains students on them.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from d3hr_datasets import Artifact, D3HRDataset, GroupSamplingConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_pil
from recipes.common.image_groups import save_group
from recipes.common.prerequisites import need, need_artifact
from recipes.common.program import program
from recipes.train.step_distillation import fewer_steps

COMMAND = "python -m recipes.train.step_distillation recipes/configs/distilled_steps_fashion_mnist.yaml"


def _images(dataset: D3HRDataset, model: LatentDiffusion, num_steps: int, label: int) -> list[Image.Image]:
    latents = dataset.sample_latents(label)
    labels = torch.full((len(latents),), label)
    clean = model.denoise(latents, labels, fewer_steps(dataset.decode, num_steps))
    return to_pil(model.decode(clean), dataset.artifact.info.padding)


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="runs/artifacts/select")
    parser.add_argument("--model", type=Path, default=Path("runs/distilled-steps/model"))
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2], help="each is one forward pass")
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/groups"))
    arguments = parser.parse_args()
    need_artifact(arguments.artifact)
    need(arguments.model, COMMAND)
    artifact = Artifact.from_pretrained(arguments.artifact)
    for ipc, seed in itertools.product(arguments.ipc, range(arguments.seeds)):
        dataset = D3HRDataset(artifact, ipc=ipc, sampling=GroupSamplingConfig("modes", seed=seed))
        model = LatentDiffusion.from_pretrained(arguments.model, device=dataset.model().device)
        for steps in arguments.steps:
            images = partial(_images, dataset, model, steps)
            save_group(arguments.output / f"distilled-{steps}-ipc{ipc}-seed{seed}", dataset, images)


if __name__ == "__main__":
    main()
