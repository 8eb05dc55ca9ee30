"""Choose images by what a student of the earlier ones still gets wrong: folders of images for students.

    python -m recipes.build.fashion_mnist --select 10000 --output runs/artifacts/select --work WORK
    python -m recipes.build.student_errors

Candidates of every class are a group of modes. The first images are chosen by facility location in a
teacher's features, as `d3hr curate` does. Then a student is trained on what is chosen, by DC's recipe, and
each further block covers the candidates that the student errs on: facility location again, weighted by its
loss. So the order of a class depends on those of the others. The first k images of an order are the group of
k images. The table `recipes/configs/tables/selection-student-errors.yaml` trains students on the groups.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

from d3hr_datasets import D3HRDataset, GroupSamplingConfig
from d3hr_datasets.curation.ordering import order_candidates
from d3hr_datasets.experiments.protocol_files import choose_protocol
from d3hr_datasets.image_sets.generated_images import dataset_tensors
from d3hr_datasets.image_sets.judge import load_judge
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.training import train_student
from d3hr_datasets.students.views import TensorImages, normalized
from recipes.common.image_groups import save_group
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program

SIZES = (5, 10, 20, 35, 50)  # images of each class after which a student says what is wrong


def order_by_errors(
    features: torch.Tensor, pixels: torch.Tensor, labels: torch.Tensor, protocol: Protocol, seed: int
) -> torch.Tensor:
    """Return positions of candidates, the best first, of each class (K, `SIZES[-1]`).

    Args:
        features: (N, D), the teacher's.
        pixels: (N, C, S, S) uint8.
        labels: (N,) int64, 0 to K - 1, of each at least `SIZES[-1]`.
        protocol: Of the students.
        seed: Of the students.
    """
    num_classes = int(labels.max()) + 1
    chosen = torch.empty(num_classes, 0, dtype=torch.int64)
    losses = torch.ones(len(labels))
    for size in SIZES:
        if chosen.numel():
            losses = errors_of_a_student(pixels, labels, chosen.flatten(), protocol, seed)
        more = size - chosen.shape[1]
        rows = [
            _block(features, labels == label, chosen[label], losses, more) for label in range(num_classes)
        ]
        chosen = torch.cat([chosen, torch.stack(rows)], dim=1)
    return chosen


def _block(
    features: torch.Tensor, of_class: torch.Tensor, chosen: torch.Tensor, losses: torch.Tensor, number: int
) -> torch.Tensor:
    """Return the positions of the next images of a class."""
    of_class = of_class.clone()
    of_class[chosen] = False
    free = of_class.nonzero().flatten()
    weights = losses[free]
    found = order_candidates(features[free], number, "facility_location", weights=weights)
    return free[found]


def errors_of_a_student(
    pixels: torch.Tensor, labels: torch.Tensor, chosen: torch.Tensor, protocol: Protocol, seed: int
) -> torch.Tensor:
    """Return the loss (N,) of all candidates, of a student of those at the positions `chosen`."""
    num_classes = int(labels.max()) + 1
    names = [str(label) for label in range(num_classes)]
    images = TensorImages(pixels[chosen], labels[chosen], names)
    student = normalized(protocol, train_student(protocol, images, num_classes, seed=seed))
    with torch.no_grad():
        logits = torch.cat([student(part.float() / 255) for part in pixels.split(500)])
    return F.cross_entropy(logits, labels, reduction="none") + 1e-6  # none has no weight at all


def _images(dataset: D3HRDataset, order: torch.Tensor, label: int) -> list[Image.Image]:
    return [dataset[position][0] for position in order[label].tolist()]


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="runs/artifacts/select")
    parser.add_argument("--teacher", default="embedded:fashion-mnist")
    parser.add_argument("--epochs", type=int, default=100, help="of the students that say what is wrong")
    parser.add_argument("--width", type=int, default=64, help="of these students")
    parser.add_argument("--candidates", type=int, default=300, help="of each class")
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 50], choices=SIZES)
    parser.add_argument("--seeds", type=int, default=2, help="orders")
    parser.add_argument("--output", type=Path, default=Path("runs/groups"))
    arguments = parser.parse_args()
    need_artifact(arguments.artifact)
    sampling = GroupSamplingConfig("modes")
    dataset = D3HRDataset(arguments.artifact, ipc=arguments.candidates, sampling=sampling)
    pixels, labels = dataset_tensors(dataset)
    judge = load_judge(arguments.teacher, dataset.artifact.info, dataset.model().device)
    features = judge.features(pixels)
    changes = {"epochs": arguments.epochs, "student_args": {"width": arguments.width, "first_padding": 3}}
    protocol = choose_protocol("dc", "fashion-mnist", 10, changes).settings()
    for seed in range(arguments.seeds):
        order = order_by_errors(features, pixels, labels, protocol, seed)
        for ipc in arguments.ipc:
            root = arguments.output / f"errors-ipc{ipc}-seed{seed}"
            save_group(root, dataset, partial(_images, dataset, order[:, :ipc]))


if __name__ == "__main__":
    main()
