"""Measure the VAE: how well it reconstructs test images, and what that costs a classifier.

    python -m recipes.evaluate.vae

What it costs a student is in `hub/results/tables/hard-labels-baselines.md`. Writes `hub/results/vae.json`.
"""

from __future__ import annotations

import argparse

import torch

from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.image_sets.generated_images import reconstruct
from d3hr_datasets.image_sets.real_images import load_images
from recipes.common.classifier import accuracy, real_classifier
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.train.vae import psnr


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="hub/d3hr-fashion-mnist/model")
    parser.add_argument("--output", default="hub/results/vae.json")
    arguments = parser.parse_args()
    need_artifact(arguments.model)
    model = LatentDiffusion.from_pretrained(arguments.model)
    test, labels, _ = load_images("fashion-mnist", "test", 28, 1)
    reconstructed = reconstruct(model, test)
    each = torch.cat(
        [
            psnr(to_model_range(real, 0), to_model_range(other, 0), 0)
            for real, other in zip(test.split(1000), reconstructed.split(1000), strict=True)
        ]
    )
    classifier = real_classifier()
    results = {
        "parameters": sum(parameter.numel() for parameter in model.vae.parameters()),
        "psnr_mean_db": each.mean().item(),
        "psnr_of_mean_squared_error_db": -10 * (10 ** (-each / 10)).mean().log10().item(),
        "classifier_accuracy_real": accuracy(classifier, test, labels),
        "classifier_accuracy_reconstructed": accuracy(classifier, reconstructed, labels),
    }
    write_results(arguments.output, vars(arguments), results)
    print(results)


if __name__ == "__main__":
    main()
