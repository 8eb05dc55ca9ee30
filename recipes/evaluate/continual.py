"""Teach a student classes that arrive in five steps, with different memories of the earlier ones.

    python -m recipes.evaluate.continual

Two classes of Fashion-MNIST arrive at each step, some hundred images of each. Of the earlier ones the student
sees again nothing, stored images, images that statistics of the same images make, or all of them. All
memories are as many views of each class in every epoch; what differs is what they take to store. The embedded
model was trained on all ten classes, as a large model has seen many. Writes `hub/results/continual.json`.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import to_pil_image

from d3hr_datasets import D3HRDataset
from d3hr_datasets.artifact.d3hr_json import STATISTICS
from d3hr_datasets.experiments.protocol_files import choose_protocol
from d3hr_datasets.image_sets.real_images import HELD_OUT, fashion_mnist, load_images, split_indices
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.scores import mean_std
from d3hr_datasets.students.training import EpochReport, train_student
from d3hr_datasets.students.views import TensorImages, normalized
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.common.small_artifacts import build_of

MODEL = Path("hub/d3hr-fashion-mnist")
NUM_CLASSES, AT_A_TIME = 10, 2  # classes; of a step
WIDTH, BATCH_SIZE = 32, 100


@dataclass(frozen=True)
class Memory:
    """What is kept of classes that are not there any more.

    Args:
        images: By class label, (N, 1, 28, 28) uint8; any number, none too.
        stored_bytes: Of one class, on average.
    """

    images: list[torch.Tensor]
    stored_bytes: float


class Views(Dataset[tuple[torch.Tensor, int]]):
    """As many views of each class: images that are fewer are seen more often.

    Args:
        images: By class label; of an empty one there is no view.
        number: Views of each class.
    """

    def __init__(self, images: dict[int, torch.Tensor], number: int) -> None:
        kept = {label: members for label, members in images.items() if len(members)}
        chosen = [members[torch.arange(number) % len(members)] for members in kept.values()]
        labels = torch.tensor(list(kept)).repeat_interleave(number)
        self._images = TensorImages(torch.cat(chosen), labels, [])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._images[index]


def stored_images(images: list[torch.Tensor], limit: float | None = None) -> Memory:
    """Keep the first real images of each class, as PNG files of `limit` bytes at most; all without."""
    kept, total = [], 0
    for members in images:
        number = used = 0
        for image in members:
            size = png_bytes(image)
            if limit is not None and used + size > limit:
                break
            number, used = number + 1, used + size
        kept.append(members[:number])
        total += used
    return Memory(kept, total / len(images))


def png_bytes(image: torch.Tensor) -> int:
    """Return the size of the PNG file of an image (1, H, W)."""
    file = io.BytesIO()
    to_pil_image(image).save(file, "png", optimize=True)
    return file.tell()


def generated_images(artifact: Path, number: int, root: Path) -> Memory:
    """Keep statistics, and make `number` images of each class of them."""
    dataset = D3HRDataset(artifact, root, ipc=number)
    dataset.materialize()
    groups = [
        torch.stack([torch.from_numpy(array) for array in class_pixels(dataset, label)])
        for label in range(NUM_CLASSES)
    ]
    return Memory(groups, (artifact / STATISTICS).stat().st_size / NUM_CLASSES)


def class_pixels(dataset: D3HRDataset, label: int) -> list[Any]:
    """Return the images of a class, each (1, H, W) uint8."""
    import numpy as np

    first = label * dataset.ipc
    return [np.array(dataset[first + index][0])[None] for index in range(dataset.ipc)]


def run(
    memory: Memory,
    real: list[torch.Tensor],
    test: TensorImages,
    protocol: Protocol,
    seed: int,
    views: int,
) -> dict[str, float]:
    """Train one student through all steps, and say how well it knows what it has seen.

    Returns:
        "average", the mean over the steps of its accuracy on the classes seen so far; "last", that after the
        last step; "forgetting", by how much the accuracy on the classes of each earlier step is below its
        best, on average. All in percent.
    """
    state: dict[str, Any] | None = None
    correct: list[torch.Tensor] = []  # by step, accuracy of each class
    for step in range(NUM_CLASSES // AT_A_TIME):
        new = range(step * AT_A_TIME, (step + 1) * AT_A_TIME)
        images = {label: memory.images[label] for label in range(new.start)}
        images |= {label: real[label] for label in new}
        reports: list[EpochReport] = []
        student = train_student(
            protocol,
            Views(images, views),
            NUM_CLASSES,
            seed=seed * NUM_CLASSES + step,
            state=None if state is None else {**state, "epoch": -1},  # go on, with a schedule of its own
            on_epoch=reports.append,
        )
        state = reports[-1].state()
        correct.append(class_accuracies(normalized(protocol, student), test, new.stop))
    return summary(correct)


def summary(correct: list[torch.Tensor]) -> dict[str, float]:
    """Return the figures of `run` from the accuracies of all classes after each step, the seen ones first."""
    steps = [accuracies.view(-1, AT_A_TIME).mean(dim=1) for accuracies in correct]
    earlier = range(len(steps) - 1)
    best = [max(float(after[step]) for after in steps[step:-1]) for step in earlier]
    lost = [best[step] - float(steps[-1][step]) for step in earlier]
    return {
        "average": 100 * sum(float(step.mean()) for step in steps) / len(steps),
        "last": 100 * float(steps[-1].mean()),
        "forgetting": 100 * sum(lost) / len(lost),
    }


@torch.inference_mode()
def class_accuracies(
    network: Callable[[torch.Tensor], torch.Tensor], test: TensorImages, seen: int
) -> torch.Tensor:
    """Return the accuracy on each of the first `seen` classes, told apart from each other only."""
    labels = torch.tensor(test.targets)
    member = labels < seen
    images, labels = test.images[member], labels[member]
    found = torch.cat([network(batch.float() / 255)[:, :seen].argmax(dim=1) for batch in images.split(500)])
    return torch.stack([(found[labels == label] == label).double().mean() for label in range(seen)])


def memories(
    images: Dataset[Any], numbers: list[list[int]], views: int, num_modes: int, work: Path
) -> dict[str, Memory]:
    """Return the ways to remember, stored images of the bytes of each artifact beside it.

    Args:
        images: Fashion-MNIST.
        numbers: By class label, those that arrive.
        views: Images of each class that statistics make.
        num_modes: Of a class, of the second artifact.
        work: Folder of artifacts and generated images.
    """
    real = pixels_of(images, numbers)
    flat = sorted(number for members in numbers for number in members)
    name = f"{len(flat)}-images"
    of_one = build_of(images, flat, MODEL / "model", work / f"{name}-gaussians", num_modes=1)
    of_modes = build_of(
        images, flat, MODEL / "model", work / f"{name}-{num_modes}-modes", num_modes=num_modes
    )
    gaussian, modes = (generated_images(artifact, views, work / "cache") for artifact in (of_one, of_modes))
    return {
        "nothing": Memory([members[:0] for members in real], 0),
        "one Gaussian": gaussian,
        "images of as many bytes as one Gaussian": stored_images(real, gaussian.stored_bytes),
        f"{num_modes} modes": modes,
        "images of as many bytes as modes": stored_images(real, modes.stored_bytes),
        "all images": stored_images(real),
    }


def pixels_of(images: Any, numbers: list[list[int]]) -> list[torch.Tensor]:
    """Return images by class label, each (N, 1, 28, 28) uint8."""
    return [images.data[members][:, None] for members in numbers]


def chosen_images(images: Any, number: int) -> list[list[int]]:
    """Return the numbers of the first images of each class that are not held out, by class label."""
    indices = split_indices(len(images), HELD_OUT, "train")
    labels = images.targets[indices]
    return [indices[labels == label][:number].tolist() for label in range(NUM_CLASSES)]


def _scores(values: list[float]) -> dict[str, Any]:
    mean, std = mean_std(values)
    return {"mean": mean, "std": std, "values": values}


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=300, help="of each class, and views an epoch")
    parser.add_argument("--modes", type=int, default=10, help="of each class, of the second artifact")
    parser.add_argument("--epochs", type=int, default=15, help="of each step")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/continual"), help="artifacts and generated images"
    )
    parser.add_argument("--output", type=Path, default=Path("hub/results/continual.json"))
    arguments = parser.parse_args()
    need_artifact(MODEL)
    changes = {"epochs": arguments.epochs, "batch_size": BATCH_SIZE, "flip": True}
    changes["student_args"] = {"first_padding": 3, "width": WIDTH}
    protocol = choose_protocol("dc", "fashion-mnist", 10, changes).settings()
    images = fashion_mnist(train=True)
    numbers = chosen_images(images, arguments.images)
    real = pixels_of(images, numbers)
    test = TensorImages(*load_images("fashion-mnist", "test", 28, 1))
    results: dict[str, Any] = {}
    ways = memories(images, numbers, arguments.images, arguments.modes, arguments.work)
    for name, memory in ways.items():
        runs = [run(memory, real, test, protocol, seed, arguments.images) for seed in range(arguments.seeds)]
        scores = {key: _scores([found[key] for found in runs]) for key in runs[0]}
        seen = sum(len(members) for members in memory.images) / NUM_CLASSES
        results[name] = {**scores, "bytes_of_a_class": memory.stored_bytes, "images_of_a_class": seen}
        print(name, results[name])
    settings = {key: getattr(arguments, key) for key in ("images", "modes", "epochs", "seeds")}
    model = sum(path.stat().st_size for path in (MODEL / "model").glob("*/*.safetensors"))
    settings |= {"width": WIDTH, "batch_size": BATCH_SIZE, "protocol": "dc", "model_bytes": model}
    write_results(arguments.output, settings, results)


if __name__ == "__main__":
    main()
