"""Show that seeking modes takes no more memory for more images, and how near it comes to k-means of all.

    python -m recipes.evaluate.modes

Encodes Fashion-MNIST once, with the model of an artifact, and repeats the latents with noise. Each number of
images is a stream and a process of its own. Their objective is the sum of squared distances of all latents to
the nearest centroid of their class, over that of scikit-learn's k-means of all latents at once. Writes
`hub/results/modes.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.cluster import KMeans

from d3hr_datasets import D3HRDataset
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.image_sets.real_images import fashion_mnist
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.common.tensor_cache import cached_tensors
from recipes.evaluate.modes_once import JITTER, JitteredLatents

ROOT = Path(__file__).resolve().parents[2]  # where a process finds the recipes
LATENTS = "latents.safetensors"
BATCH = 200


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="hub/d3hr-fashion-mnist")
    parser.add_argument("--images", type=int, nargs="+", default=[60_000, 600_000])
    parser.add_argument("--modes", type=int, default=50, help="of each class")
    parser.add_argument("--work", type=Path, default=Path("runs/modes"), help="folder of the latents")
    parser.add_argument("--output", type=Path, default=Path("hub/results/modes.json"))
    arguments = parser.parse_args()
    if not (arguments.work / LATENTS).exists():
        need_artifact(arguments.artifact)
    cached_tensors(arguments.work / LATENTS, lambda: encoded(arguments.artifact))
    latents = JitteredLatents(arguments.work / LATENTS)
    results: dict[str, Any] = {}
    for number in arguments.images:
        everything = k_means_of_all(latents, number, arguments.modes)
        for known in ("known", "unknown"):
            with tempfile.TemporaryDirectory() as folder:
                values = _search(arguments, number, known, folder)
                centroids = load_file(Path(folder) / "centroids.safetensors")["centroids"]
            found = [objective(latents, number, centroids, label) for label in range(len(centroids))]
            ratios = [one / best for one, best in zip(found, everything, strict=True)]
            values |= {"objective_ratio": sum(found) / sum(everything), "largest_of_a_class": max(ratios)}
            results[f"{number} images, their number {known}"] = values
            print(values)
    settings = {"images": arguments.images, "modes": arguments.modes, "jitter": JITTER}
    write_results(arguments.output, settings, results)


def encoded(artifact: str) -> dict[str, torch.Tensor]:
    """Return the VAE latents of the training images of Fashion-MNIST, and their labels."""
    dataset, images = D3HRDataset(artifact, ipc=1), fashion_mnist(train=True)
    model, padding = dataset.model(), dataset.artifact.info.padding
    batches = [model.encode(to_model_range(batch, padding)) for batch in images.data[:, None].split(BATCH)]
    return {"latents": torch.cat(batches).cpu(), "labels": images.targets}


def latents_of_class(latents: JitteredLatents, number: int, label: int) -> np.ndarray[Any, Any]:
    """Return the latents of a class among the first `number`, (N, D) float32."""
    own = [index for index in range(number) if latents.label(index) == label]
    return torch.stack([latents[index] for index in own]).flatten(1).numpy()


def k_means_of_all(latents: JitteredLatents, number: int, num_modes: int) -> list[float]:
    """Return the objective of k-means of all latents of each class."""
    classes = range(int(latents.labels.max()) + 1)
    search = KMeans(num_modes, n_init=3, random_state=0)
    return [float(search.fit(latents_of_class(latents, number, label)).inertia_) for label in classes]


def objective(latents: JitteredLatents, number: int, centroids: torch.Tensor, label: int) -> float:
    """Return the sum of squared distances of the latents of a class to its nearest centroids (K, M, ...)."""
    own = centroids[label].flatten(1).double()
    points = torch.from_numpy(latents_of_class(latents, number, label))
    nearest = [torch.cdist(part.double(), own).min(dim=1).values for part in points.split(4096)]
    return float(torch.cat(nearest).square().sum())


def _search(arguments: argparse.Namespace, number: int, known: str, folder: str) -> dict[str, Any]:
    """Seek modes in a process of its own, and return what it has measured."""
    words = [(arguments.work / LATENTS).absolute(), number, known, folder, arguments.modes]
    done = subprocess.run(
        [sys.executable, "-m", "recipes.evaluate.modes_once", *map(str, words)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    main()
