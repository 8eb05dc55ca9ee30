"""Measure how many evaluations the statistics of a class ask for: error of its means and variances.

    python -m recipes.evaluate.inversion_steps

The same held-out training images are inverted in few to many steps, on grids and counted from the clean end
with several spacings, and the statistics of each class are compared with those of a far finer walk. The unit
is the standard error that the statistics have anyway, since a class is a sample of its images: below 1 a
better inversion shows in nothing. Writes `hub/results/inversion_steps.json`.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any, get_args

import torch
from tqdm import tqdm

from d3hr_datasets import Artifact, ClassGaussians, InversionConfig
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.build.moments import RunningMoments
from d3hr_datasets.config.decode_steps import Spacing
from d3hr_datasets.config.settings import InversionMethod
from d3hr_datasets.diffusion.inversion import inversion_passes
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.image_sets.real_images import load_images
from d3hr_datasets.students.selection import random_per_class
from recipes.common.errors import RecipeError
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results

BATCH = 100
FINEST = 100  # steps of the reference, of second order and closer together near the clean end


def statistics(
    model: LatentDiffusion, latents: torch.Tensor, labels: torch.Tensor, config: InversionConfig
) -> ClassGaussians:
    """Return the class Gaussians of inverted latents at the last timestep."""
    moments = RunningMoments(int(labels.max()) + 1, tuple(latents.shape[1:]))
    for batch, of_batch in zip(latents.split(BATCH), labels.split(BATCH), strict=True):
        moments.update(model.invert(batch, of_batch, config)[config.timesteps[-1]], of_batch)
    return moments.gaussians()


def errors(found: ClassGaussians, wanted: ClassGaussians, class_size: int) -> dict[str, float]:
    """Return how far statistics are off, in their standard errors of classes of a size; rms over elements.

    The standard error of a mean is sd / sqrt(n), of a normal law's variance variance * sqrt(2 / (n - 1)).
    """
    of_mean = (wanted.variance / class_size).sqrt()
    of_variance = wanted.variance * (2 / (class_size - 1)) ** 0.5

    def rms(values: torch.Tensor) -> float:
        return float(values.square().mean().sqrt())

    return {
        "means": rms((found.mean - wanted.mean) / of_mean),
        "variances": rms((found.variance - wanted.variance) / of_variance),
        "means, of the spread": rms((found.mean - wanted.mean) / wanted.variance.sqrt()),
        "spreads, relative": rms(found.variance.sqrt() / wanted.variance.sqrt() - 1),
    }


def ways(
    timestep: float, grids: list[int], steps: list[int], spacings: list[Spacing]
) -> dict[str, InversionConfig]:
    """Return the ways to invert by name: every method, on grids, and in steps that are counted."""
    found: dict[str, InversionConfig] = {}
    for method in get_args(InversionMethod):
        for grid in grids:
            found[f"{method}, grid of {grid}"] = InversionConfig((timestep,), grid, method=method)
        for spacing, number in itertools.product(spacings, steps):
            found[f"{method}, {spacing}, {number} steps"] = InversionConfig(
                (timestep,), method=method, num_steps=number, spacing=spacing
            )
    return found


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="hub/d3hr-fashion-mnist")
    parser.add_argument("--images", type=int, default=100, help="of each class")
    parser.add_argument(
        "--class-size", type=int, default=6000, help="images whose standard error is the unit"
    )
    parser.add_argument("--grids", type=int, nargs="*", default=[25, 50], help="steps of whole grids")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 11, 20], help="that are counted")
    parser.add_argument(
        "--spacings", nargs="+", choices=get_args(Spacing), default=["uniform", "quadratic", "cubic"]
    )
    parser.add_argument("--output", default="hub/results/inversion_steps.json")
    arguments = parser.parse_args()
    need_artifact(arguments.artifact)
    artifact = Artifact.load(arguments.artifact)
    model = load_model(artifact)
    timestep = artifact.info.decode.timestep
    bad = [number for number in arguments.grids if timestep % (1000 / number)]
    if bad:
        raise RecipeError(f"timestep {timestep:g} is not on grids of {bad} steps; give others with --grids")
    images, labels, _ = load_images("fashion-mnist", "held-out", 28, 1)
    chosen = random_per_class(labels, arguments.images, 0)
    pixels = to_model_range(images[chosen], artifact.info.padding)
    latents = torch.cat([model.encode(batch) for batch in pixels.split(BATCH)])
    labels = labels[chosen]
    finest = InversionConfig((timestep,), method="adams", num_steps=FINEST, spacing="quadratic")
    wanted = statistics(model, latents, labels, finest)
    results: dict[str, Any] = {}
    compared = ways(timestep, arguments.grids, arguments.steps, arguments.spacings)
    for name, config in tqdm(compared.items()):
        off = errors(statistics(model, latents, labels, config), wanted, arguments.class_size)
        results[name] = {"evaluations": inversion_passes(model.denoiser, config), **off}
        print(name, results[name], flush=True)
    write_results(
        arguments.output,
        {**vars(arguments), "timestep": timestep, "finest": finest.to_dict()},
        results,
    )


if __name__ == "__main__":
    main()
