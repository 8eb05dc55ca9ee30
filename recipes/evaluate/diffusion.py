"""Measure generated images: are they recognised, and how diverse are they?

    python -m recipes.evaluate.diffusion

1,000 images each of raw sampling from noise, of every group sampler and of random real training
images, against as many test images, in the features of a classifier trained on real images. Writes
`hub/results/diffusion.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from typing import get_args

import torch

from d3hr_datasets import D3HRDataset, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.config.settings import GroupSamplingMethod
from d3hr_datasets.image_sets.generated_images import dataset_tensors, raw_samples
from d3hr_datasets.image_sets.real_images import load_images
from d3hr_datasets.students.selection import random_per_class
from recipes.common.classifier import Classifier, accuracy, features_of, real_classifier
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.evaluate.metrics import frechet_distance, recall_and_coverage


def measure(
    classifier: Classifier, images: torch.Tensor, labels: torch.Tensor, real: torch.Tensor
) -> dict[str, float]:
    """Return recognition in percent and distances to the features of real images."""
    features = features_of(classifier, images)
    recall, coverage = recall_and_coverage(real, features)
    return {
        "recognised_percent": accuracy(classifier, images, labels),
        "frechet_distance": frechet_distance(real, features),
        "recall": recall,
        "coverage": coverage,
    }


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="hub/d3hr-fashion-mnist")
    parser.add_argument("--ipc", type=int, default=100)
    parser.add_argument("--guidance-scales", type=float, nargs="+", help="the artifact's default otherwise")
    parser.add_argument("--output", default="hub/results/diffusion.json")
    arguments = parser.parse_args()
    need_artifact(arguments.artifact)
    classifier = real_classifier()
    test, test_labels, _ = load_images("fashion-mnist", "test", 28, 1)
    results: dict[str, dict[str, float]] = {}
    train, train_labels, _ = load_images("fashion-mnist", "train+held-out", 28, 1)
    # As many real images as generated ones: recall and coverage depend on both numbers.
    real = features_of(classifier, test[random_per_class(test_labels, arguments.ipc, 0)])
    chosen = random_per_class(train_labels, arguments.ipc, 0)
    results["random real"] = measure(classifier, train[chosen], train_labels[chosen], real)
    with tempfile.TemporaryDirectory() as root:
        base = D3HRDataset(arguments.artifact, root, arguments.ipc)
        model = load_model(base.artifact)
        scales = arguments.guidance_scales or [base.decode.guidance_scale]
        for scale in scales:
            raw = raw_samples(base, model, arguments.ipc, 0, scale)
            results[f"raw sampling, guidance {scale:g}"] = measure(classifier, *raw, real)
            for method in get_args(GroupSamplingMethod):
                if method == "curated" and base.artifact.info.curation is None:
                    continue
                sampling = GroupSamplingConfig(method, num_candidates=1000)
                decode: DecodeConfig = dataclasses.replace(base.decode, guidance_scale=scale)
                dataset = D3HRDataset(
                    arguments.artifact, root, arguments.ipc, sampling=sampling, decode=decode
                )
                key = f"{sampling.method}, guidance {scale:g}"
                results[key] = measure(classifier, *dataset_tensors(dataset), real)
    settings = {
        **vars(arguments),
        "guidance_scales": scales,
        "decode": base.decode.to_dict(),
        "search_candidates": 1000,
        "k": 5,
        "classifier_accuracy_on_test": accuracy(classifier, test, test_labels),
    }
    write_results(arguments.output, settings, results)
    print(results)


if __name__ == "__main__":
    main()
