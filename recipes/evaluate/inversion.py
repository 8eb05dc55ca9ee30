"""Measure DDIM inversion: is it undone by denoising, and how normal are inverted latents?

    python -m recipes.evaluate.inversion

Round trip on test images; normality on training images of one class at a time (so that the class
means do not count), averaged over classes and latent elements. Writes `hub/results/inversion.json`.
"""

from __future__ import annotations

import argparse

import torch
from scipy import stats
from tqdm import tqdm

from d3hr_datasets import DecodeConfig, InversionConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.image_sets.real_images import load_images
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results

PADDING = 2
TIMESTEPS = (-1, 0, 200, 400, 600, 800, 960)


def invert(
    model: LatentDiffusion, images: torch.Tensor, labels: torch.Tensor, config: InversionConfig
) -> dict[float, torch.Tensor]:
    """Return the inverted latents of uint8 images at every timestep of `config`."""
    parts: dict[float, list[torch.Tensor]] = {timestep: [] for timestep in config.timesteps}
    for batch, label in zip(tqdm(images.split(250), desc="inverting"), labels.split(250), strict=True):
        latents = model.encode(to_model_range(batch, PADDING))
        for timestep, inverted in model.invert(latents, label, config).items():
            parts[timestep].append(inverted)
    return {timestep: torch.cat(part) for timestep, part in parts.items()}


def round_trip(
    model: LatentDiffusion, images: torch.Tensor, labels: torch.Tensor, timestep: int, steps: int
) -> float:
    """Return the mean relative error of latents that were inverted and denoised without guidance."""
    config = InversionConfig(timesteps=(-1, timestep), num_inference_steps=steps)
    inverted = invert(model, images, labels, config)
    decode = DecodeConfig(timestep=timestep, num_inference_steps=steps, guidance_scale=1.0)
    returned = model.denoise(inverted[timestep], labels, decode)
    error = (returned - inverted[-1]).flatten(1).norm(dim=1) / inverted[-1].flatten(1).norm(dim=1)
    return float(error.mean())


def normality(latents: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return mean |skewness|, mean |excess kurtosis| and how many elements pass a normality test.

    The test is D'Agostino and Pearson's at the level of 5 %: of Gaussian elements 95 % pass.
    """
    skewness, kurtosis, passed, correlation = [], [], [], []
    for label in labels.unique():
        members = latents[labels == label].flatten(1).double()
        values = members.numpy()
        skewness.append(abs(stats.skew(values)).mean())
        kurtosis.append(abs(stats.kurtosis(values)).mean())
        passed.append((stats.normaltest(values).pvalue > 0.05).mean())
        matrix = torch.corrcoef(members.T)
        correlation.append((matrix - matrix.diag().diag()).abs().mean().item())
    summary = {
        "skewness": skewness,
        "excess_kurtosis": kurtosis,
        "passed": passed,
        "correlation": correlation,
    }
    return {name: float(sum(values) / len(values)) for name, values in summary.items()}


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="hub/d3hr-fashion-mnist/model")
    parser.add_argument("--images", type=int, default=1000, help="training images for the normality table")
    parser.add_argument("--round-trips", type=int, default=200, help="test images for the round trip")
    parser.add_argument("--output", default="hub/results/inversion.json")
    arguments = parser.parse_args()
    need_artifact(arguments.model)
    model = LatentDiffusion.from_pretrained(arguments.model)
    test, test_labels, _ = load_images("fashion-mnist", "test", 28, 1)
    test, test_labels = test[: arguments.round_trips], test_labels[: arguments.round_trips]
    train, train_labels, _ = load_images("fashion-mnist", "train", 28, 1)
    train, train_labels = train[: arguments.images], train_labels[: arguments.images]
    config = InversionConfig(timesteps=TIMESTEPS, num_inference_steps=25)
    inverted = invert(model, train, train_labels, config)
    results = {
        "round_trip_relative_error": {
            f"t={timestep}, {steps} steps": round_trip(model, test, test_labels, timestep, steps)
            for timestep, steps in ((400, 50), (600, 50), (800, 50), (400, 25))
        },
        "normality": {
            ("VAE space" if timestep == -1 else f"t={timestep}"): normality(latents, train_labels)
            for timestep, latents in inverted.items()
        }
        | {"Gaussian noise": normality(torch.randn_like(inverted[-1]), train_labels)},
    }
    write_results(arguments.output, {**vars(arguments), "normality_grid": 25}, results)
    print(results)


if __name__ == "__main__":
    main()
