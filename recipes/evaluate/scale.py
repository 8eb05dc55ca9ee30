"""Simulate builds of ImageNet-1K and ImageNet-21K on 1 to 512 workers: failures, slow workers, slow storage.

    python -m recipes.evaluate.scale

The division into chunks, the files of those that are finished and their merge are the real code, on latents
of one number; time is simulated (see `recipes.evaluate.simulated_build`). How many images a worker does in a
second is an assumption, 40 % of an H100 as in `recipes/IMAGENET.md`, until `--images-per-second` says what
was measured. Writes `hub/results/scale.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3hr_datasets.build.merged_moments import MERGE_BYTES
from d3hr_datasets.build.mode_count import images_of_class
from recipes.common.errors import RecipeError
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.evaluate.simulated_build import Cluster, Work, simulate

ELEMENTS, MOMENTS, FLOAT64 = 4 * 32 * 32, 2, 8  # of a latent of DiT-XL/2; mean and squares; bytes
EVALUATIONS = 6  # of each image, see `recipes/IMAGENET.md`, as all of the next line
ENCODING = 272.7 / 1697  # of the operations of an image: what the search for modes does with it
SEEDS = 3  # of failures, and of which workers are slow


@dataclass(frozen=True)
class ImageSet:
    """A data set to plan for.

    Args:
        images: How many.
        classes: How many.
        image_bytes: Of a file, on average.
        chunk_sizes: Images in a chunk, to be tried.
    """

    images: int
    classes: int
    image_bytes: float
    chunk_sizes: tuple[int, ...]

    def chunk_bytes(self, chunk_size: int, num_modes: int) -> float:
        """Return the size of a chunk's file where images are sorted by class."""
        rows = (chunk_size * self.classes / self.images + 1) * num_modes
        found = rows * (1 - (1 - 1 / rows) ** chunk_size) if rows > 1 else 1.0
        return found * MOMENTS * FLOAT64 * ELEMENTS

    def work(self, chunk_size: int, num_modes: int) -> Work:
        """Return a build of them, as the library makes it."""
        searched = min(self.images, self.classes * images_of_class(num_modes)) if num_modes > 1 else 0
        at_once = max(1, int(MERGE_BYTES // (MOMENTS * FLOAT64 * ELEMENTS * num_modes)))
        return Work(
            self.images,
            chunk_size,
            self.image_bytes,
            self.chunk_bytes(chunk_size, num_modes),
            searched * ENCODING,
            -(-self.classes // at_once),
        )


IMAGE_SETS = {
    "ImageNet-1K": ImageSet(1_281_167, 1000, 148e9 / 1_281_167, (2048, 512)),
    "ImageNet-21K": ImageSet(14_197_122, 21_841, 1.3e12 / 14_197_122, (8192,)),
}
WAYS: dict[str, dict[str, Any]] = {
    "nothing fails": {},
    "a failure in 100 worker-hours": {"hours_between_failures": 100},
    "5 % of workers at half speed": {"slow_share": 0.05},
    "storage of 1 GB/s": {"storage_bytes_per_second": 1e9},
    "all three": {"hours_between_failures": 100, "slow_share": 0.05, "storage_bytes_per_second": 1e9},
}


def plan(images: ImageSet, num_modes: int, rate: float) -> dict[str, float]:
    """Return what a build asks for: work, storage, memory."""
    values = images.classes * ELEMENTS
    return {
        "images": images.images,
        "evaluations_millions": images.images * EVALUATIONS / 1e6,
        "worker_hours": images.images / rate / 3600,
        "images_gigabytes": images.images * images.image_bytes / 1e9,
        "artifact_megabytes": values * 2 * (2 + (num_modes + 1) * (num_modes > 1)) / 1e6,
        "memory_of_centroids_gigabytes": values * num_modes * 4 * (num_modes > 1) / 1e9,
    }


def simulated(work: Work, cluster: Cluster, seeds: int = SEEDS) -> dict[str, float]:
    """Return how a build goes on paper, the mean over some seeds; of recoveries, over those that had some.

    Nothing is returned of a build that fails more often than it gets on.
    """
    outcomes = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = simulate(work, dataclasses.replace(cluster, seed=seed), Path(folder))
            except RecipeError as error:
                print(error, file=sys.stderr)
                return {}
            outcomes.append(dataclasses.asdict(outcome))
    known = {key: [one[key] for one in outcomes if one[key] is not None] for key in outcomes[0]}
    return {key: sum(values) / len(values) for key, values in known.items() if values}


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images-per-second", type=float, default=233.0, help="of one worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--modes", type=int, default=50, help="per class")
    parser.add_argument("--chunk-size", type=int, nargs="+", help="instead of those of each set")
    parser.add_argument("--sets", nargs="+", choices=sorted(IMAGE_SETS), default=sorted(IMAGE_SETS))
    parser.add_argument("--output", type=Path, default=Path("hub/results/scale.json"))
    arguments = parser.parse_args()
    settings = {key: value for key, value in vars(arguments).items() if key != "output"}
    results: dict[str, Any] = {}
    for name in arguments.sets:
        images = IMAGE_SETS[name]
        builds: dict[str, Any] = {}
        for chunk_size in arguments.chunk_size or images.chunk_sizes:
            for way, changes in WAYS.items():
                row = builds.setdefault(f"{chunk_size} images a chunk, {way}", {})
                for workers in arguments.workers:
                    cluster = Cluster(workers, arguments.images_per_second, **changes)
                    work = images.work(chunk_size, arguments.modes)
                    by_chance = SEEDS if "hours_between_failures" in changes else 1
                    row[str(workers)] = simulated(work, cluster, by_chance)
                    print(name, chunk_size, way, workers, row[str(workers)])
        results[name] = {
            "plan": plan(images, arguments.modes, arguments.images_per_second),
            "workers": builds,
        }
    write_results(arguments.output, settings, results)


if __name__ == "__main__":
    main()
