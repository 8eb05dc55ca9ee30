"""Measure whether the embedded set has near copies of training images.

    python -m recipes.evaluate.copies

Sets of 1, 10 and 50 images per class, of three seeds each, at the artifact's own settings are compared with
all 60,000 training images, in pixels and in the features of the embedded teacher. So are the 10,000 test
images, encoded and decoded by the same VAE, and as they are. Images of all seeds of a size are one row, and
are numbered one seed after another. They are drawn around the same modes, so they are not independent: a mode
near a training image counts once for each seed. Writes `hub/results/copies.json`.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from tqdm import tqdm

from d3hr_datasets import D3HRDataset
from d3hr_datasets.config.defaults import BATCH_SIZE
from d3hr_datasets.copies.comparisons import compare_nearness
from d3hr_datasets.copies.findings import HELD_OUT, CopyFindings
from d3hr_datasets.copies.nearness import NEIGHBOURS, PIXELS, Nearness, measure_nearness
from d3hr_datasets.image_sets.generated_images import dataset_tensors, reconstruct
from d3hr_datasets.image_sets.real_images import load_images
from d3hr_datasets.report.copying import within_vae
from d3hr_datasets.students.teachers import Teacher, load_teacher
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results

TEACHER = "embedded:fashion-mnist"
BLOCK = 2000  # training images in memory as float64
AS_THEY_ARE = "test images as they are"


def generated_sets(
    artifact: str, ipcs: list[int], seeds: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return images and labels of each size, those of all seeds together."""
    sets = {}
    with tempfile.TemporaryDirectory() as root:
        for ipc in ipcs:
            parts = [dataset_tensors(D3HRDataset(artifact, root, ipc, seed)) for seed in range(seeds)]
            sets[f"ipc {ipc}"] = (torch.cat([i for i, _ in parts]), torch.cat([t for _, t in parts]))
    return sets


def features_of(teacher: Teacher, images: torch.Tensor) -> torch.Tensor:
    """Return a teacher's features of uint8 images."""
    with torch.no_grad():
        return torch.cat([teacher.features(batch.float() / 255) for batch in images.split(BATCH_SIZE)])


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="hub/d3hr-fashion-mnist")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", default="hub/results/copies.json")
    arguments = parser.parse_args()
    need_artifact(arguments.artifact)
    train, _, names = load_images("fashion-mnist", "train+held-out", 28, 1)
    test, test_labels, _ = load_images("fashion-mnist", "test", 28, 1)
    teacher = load_teacher(TEACHER, names)
    dataset = D3HRDataset(arguments.artifact)
    sets = {
        **generated_sets(arguments.artifact, arguments.ipc, arguments.seeds),
        AS_THEY_ARE: (test, test_labels),
        "reference": (reconstruct(dataset.model(), test), test_labels),
    }
    found = measure_nearness(
        torch.cat([images for images, _ in sets.values()]),
        tqdm(train.split(BLOCK), "comparing with training images", mininterval=20),
        len(train),
        lambda images: features_of(teacher, images),
    )
    parts: dict[str, dict[str, Nearness]] = {}
    first = 0
    for name, (images, _) in sets.items():
        last = first + len(images)
        parts[name] = {space: nearness.part(first, last) for space, nearness in found.items()}
        first = last
    reference = parts.pop("reference")
    pixels = {image.numpy().tobytes() for image in train}
    shared = sum(image.numpy().tobytes() in pixels for image in test)
    results: dict[str, Any] = {}
    for name, nearness in parts.items():
        spaces = compare_nearness(nearness, sets[name][1], reference, test_labels, names)
        results[name] = CopyFindings(
            reference=HELD_OUT,
            num_training=len(train),
            num_behind=sum(dataset.artifact.info.counts),
            num_reference=len(test),
            num_shared=shared,
            num_neighbours=NEIGHBOURS,
            teacher=TEACHER,
            within_vae=within_vae(nearness[PIXELS], lambda numbers: train[numbers], dataset.model()),
            spaces=spaces,
        ).to_dict()
        print(name, results[name]["verdict"])
    settings = {**vars(arguments), "fingerprint": dataset.artifact.fingerprint, "teacher": TEACHER}
    write_results(arguments.output, settings, results)


if __name__ == "__main__":
    main()
