"""Compare ways to invert at equal numbers of model evaluations.

    python -m recipes.evaluate.inversion_methods

Held-out training images are inverted to the artifact's timestep by every method, and denoised on the
artifact's grid without guidance: the round trip. Normality and correlation are those of the inverted latents,
within classes. Writes `hub/results/inversion_methods.json`.

`ddim` and `fixed_point` are the library's. "At the target" the model is evaluated at the timestep that a step
goes to, as D3HR's code and diffusers' `DDIMInverseScheduler` do. The explicit midpoint rule and diffusers'
DPM-Solver++ (2M) are here to be compared with.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DPMSolverMultistepInverseScheduler
from tqdm import tqdm

from d3hr_datasets import Artifact, DecodeConfig, InversionConfig
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.config.timesteps import CLEAN, timestep_grid
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.noise_schedule import BetaSchedule
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.diffusion.solver import predict_noise, step
from d3hr_datasets.image_sets.real_images import load_images
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.evaluate.inversion import normality

Invert = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
BATCH = 100


def library(model: LatentDiffusion, timestep: float, steps: int, **options: Any) -> Invert:
    """Return an inversion of the library."""
    config = InversionConfig(timesteps=(timestep,), num_inference_steps=steps, **options)
    return lambda latents, labels: model.invert(latents, labels, config)[timestep]


def _noise(
    model: LatentDiffusion, latents: torch.Tensor, labels: torch.Tensor, timestep: int
) -> torch.Tensor:
    noise: torch.Tensor = predict_noise(model.denoiser, latents, timestep, labels, 1.0)
    return noise


def midpoint(model: LatentDiffusion, timestep: int, steps: int) -> Invert:
    """Return the explicit midpoint rule: two evaluations in a step, one in the first, which has no middle."""
    grid = timestep_grid(steps, model.schedule.num_train_timesteps)
    path = grid[: grid.index(timestep) + 1]

    def invert(latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        for source, target in itertools.pairwise(path):
            middle = (source + target) // 2
            start, between, end = map(model.schedule.level, (source, middle, target))
            noise = _noise(model, latents, labels, source)
            if source != CLEAN:
                noise = _noise(model, step(latents, noise, start, between), labels, middle)
            latents = step(latents, noise, start, end)
        return latents

    return invert


def dpm_solver(model: LatentDiffusion, timestep: int, steps: int) -> Invert:
    """Return diffusers' inverse DPM-Solver++ (2M) on the same grid, after a DDIM step to timestep 0."""
    assert isinstance(model.schedule, BetaSchedule)
    scheduler = DPMSolverMultistepInverseScheduler.from_config(
        model.schedule.scheduler.config, timestep_spacing="leading", steps_offset=0
    )

    def invert(latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scheduler.set_timesteps(steps - 1)  # "leading" has one step more
        path = scheduler.timesteps.tolist()
        assert tuple(path) == timestep_grid(steps, model.schedule.num_train_timesteps)[1:-1]
        levels = map(model.schedule.level, (CLEAN, 0))
        latents = step(latents, _noise(model, latents, labels, CLEAN), *levels)
        for source in path[: path.index(timestep)]:
            noise = _noise(model, latents, labels, source)
            latents = scheduler.step(noise, source, latents).prev_sample
        return latents

    return invert


@torch.inference_mode()
def evaluate(
    model: LatentDiffusion, invert: Invert, latents: torch.Tensor, labels: torch.Tensor, decode: DecodeConfig
) -> dict[str, float]:
    """Return evaluations per image, the mean relative error of the round trip, and normality."""
    calls: list[None] = []
    hook = model.network.register_forward_pre_hook(lambda *_: calls.append(None))
    batches = list(zip(latents.split(BATCH), labels.split(BATCH), strict=True))
    inverted = torch.cat([invert(*batch) for batch in batches])
    hook.remove()
    error = (model.denoise(inverted, labels, decode) - latents).flatten(1).norm(dim=1)
    return {
        "evaluations": len(calls) // len(batches),
        "relative_error": float((error / latents.flatten(1).norm(dim=1)).mean()),
        "std": float(inverted.std()),
        **normality(inverted, labels),
    }


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="hub/d3hr-fashion-mnist")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--steps", type=int, default=25, help="of the grid that all are denoised on")
    parser.add_argument("--multiples", type=int, nargs="+", default=[1, 2, 4], help="of the cost of DDIM")
    parser.add_argument("--output", default="hub/results/inversion_methods.json")
    arguments = parser.parse_args()
    need_artifact(arguments.artifact)
    artifact = Artifact.load(arguments.artifact)
    model = load_model(artifact)
    timestep, steps = int(artifact.info.decode.timestep), arguments.steps
    decode = DecodeConfig(timestep, steps, guidance_scale=1.0)
    images, labels, _ = load_images("fashion-mnist", "held-out", 28, 1)
    images, labels = images[: arguments.images], labels[: arguments.images]
    latents = torch.cat(
        [model.encode(to_model_range(batch, artifact.info.padding)) for batch in images.split(BATCH)]
    )
    methods: dict[str, Invert] = {}
    for multiple in arguments.multiples:
        methods[f"ddim, {steps * multiple} steps"] = library(model, timestep, steps * multiple)
        methods[f"ddim at the target, {steps * multiple} steps"] = library(
            model, timestep, steps * multiple, noise_timestep="target"
        )
        methods[f"dpm_solver, {steps * multiple} steps"] = dpm_solver(model, timestep, steps * multiple)
        methods[f"fixed_point, {steps} steps x {multiple}"] = library(
            model, timestep, steps, method="fixed_point", evaluations_per_step=multiple
        )
        if multiple > 1:
            methods[f"fixed_point, {steps * multiple} steps x 1"] = library(
                model, timestep, steps * multiple, method="fixed_point"
            )
            methods[f"midpoint, {steps * multiple // 2} steps"] = midpoint(
                model, timestep, steps * multiple // 2
            )
    results: dict[str, Any] = {}
    for name, invert in tqdm(methods.items()):
        results[name] = evaluate(model, invert, latents, labels, decode)
        print(name, results[name], flush=True)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    for name, found in (("VAE space", latents), ("Gaussian noise", noise)):
        results[name] = {"std": float(found.std()), **normality(found, labels)}
    settings = {**vars(arguments), "timestep": timestep, "num_inference_steps": steps}
    write_results(arguments.output, settings, results)


if __name__ == "__main__":
    main()
