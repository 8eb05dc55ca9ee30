"""Guide by a weaker model instead of the null class: folders of images for students.

    git archive d1f51d1 hub/d3hr-fashion-mnist/model | tar -x -C runs/weaker
    python -m recipes.build.fashion_mnist --select 10000 --output runs/artifacts/select --work WORK
    python -m recipes.build.weaker_guidance --weaker runs/weaker/hub/d3hr-fashion-mnist/model

What is guided away from is the prediction of an earlier checkpoint, told the class, instead of the model's
own without a class. The commit above has the transformer of 16 epochs, whose latents are those of today's
VAE: the encoder has stayed. Each image takes as many forward passes as with usual guidance, of two networks.
The table `recipes/configs/tables/selection-weaker-guidance.yaml` trains students on the images.

Source: Karras et al. (2024), "Guiding a diffusion model with a bad version of itself".
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from d3hr_datasets import Artifact, D3HRDataset, GroupSamplingConfig
from d3hr_datasets.diffusion.denoiser import Denoiser
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.diffusion.solver import denoise_latents
from recipes.common.errors import RecipeError
from recipes.common.image_groups import save_group
from recipes.common.prerequisites import need, need_artifact
from recipes.common.program import program


class WeakerGuidance(Denoiser):
    """Predicts weak + scale * (strong - weak), both told the class.

    Args:
        strong: The model.
        weaker: A worse one of the same latents and schedule.
    """

    def __init__(self, strong: Denoiser, weaker: Denoiser) -> None:
        super().__init__(**{field.name: getattr(strong, field.name) for field in dataclasses.fields(strong)})
        self.weaker = weaker

    def __call__(
        self, latents: torch.Tensor, model_time: float, class_labels: torch.Tensor, guidance_scale: float
    ) -> torch.Tensor:
        strong = super().__call__(latents, model_time, class_labels, 1.0)
        if guidance_scale == 1:
            return strong
        weak = self.weaker(latents, model_time, class_labels, 1.0)
        return weak + guidance_scale * (strong - weak)


def guided_by(weaker: Path, dataset: D3HRDataset) -> WeakerGuidance:
    """Return the model of a set, guided by the weaker one in a folder.

    Raises:
        RecipeError: Their latents, classes or schedules are not the same.
    """
    strong = dataset.model()
    other = LatentDiffusion.from_pretrained(weaker, device=strong.device)
    for what in ("latent_shape", "num_classes"):
        if getattr(strong, what) != getattr(other, what):
            raise RecipeError(
                f"{weaker} has {what} {getattr(other, what)}, and the artifact's model "
                f"{getattr(strong, what)}; give an earlier checkpoint of the same model"
            )
    if strong.schedule.prediction_type != other.schedule.prediction_type:
        raise RecipeError(
            f"{weaker} predicts {other.schedule.prediction_type!r}, and the artifact's model "
            f"{strong.schedule.prediction_type!r}; give an earlier checkpoint of the same model"
        )
    return WeakerGuidance(strong.denoiser, other.denoiser)


def _images(dataset: D3HRDataset, denoiser: Denoiser, label: int) -> list[Image.Image]:
    model, labels = dataset.model(), torch.full((dataset.ipc,), label)
    latents = dataset.sample_latents(label).to(model.device)
    images = model.decode(denoise_latents(denoiser, latents, labels.to(model.device), dataset.decode))
    return to_pil(images, dataset.artifact.info.padding)


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="runs/artifacts/select")
    parser.add_argument("--weaker", type=Path, required=True, help="folder of the weaker model")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.5, 2.0, 3.0])
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/groups"))
    arguments = parser.parse_args()
    need_artifact(arguments.artifact)
    need(arguments.weaker, "git archive d1f51d1 hub/d3hr-fashion-mnist/model | tar -x -C runs/weaker")
    artifact = Artifact.from_pretrained(arguments.artifact)
    for ipc, seed, scale in itertools.product(arguments.ipc, range(arguments.seeds), arguments.scales):
        decode = dataclasses.replace(artifact.info.decode, guidance_scale=scale)
        sampling = GroupSamplingConfig("modes", seed=seed)
        dataset = D3HRDataset(artifact, ipc=ipc, sampling=sampling, decode=decode)
        images = partial(_images, dataset, guided_by(arguments.weaker, dataset))
        save_group(arguments.output / f"weaker-{scale:g}-ipc{ipc}-seed{seed}", dataset, images)


if __name__ == "__main__":
    main()
