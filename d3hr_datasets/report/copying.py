"""Whether a set holds near copies of training images: a data set and real images -> findings and pairs.

Generated images came out of a VAE's decoder, which leaves out fine noise, and an image without noise is
nearer to everything. So what they are compared with, held-out images, is encoded and decoded by the same VAE.
Training images stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from d3hr_datasets.copies.findings import CopyFindings, compare_nearness
from d3hr_datasets.copies.nearness import NEIGHBOURS, Features, Nearness, measure_nearness
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.image_sets.generated_images import dataset_tensors, reconstruct
from d3hr_datasets.image_sets.judge import load_judge
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.matched_images import MatchedImages

MAX_REFERENCE = 5000  # images that generated ones are compared with, as many of each class
BLOCK = 1000  # training images in memory
SHOWN_PAIRS = 10


@dataclass(frozen=True)
class Pair:
    """A generated image and the nearest training image.

    Args:
        generated: Number of the generated image in the data set.
        class_name: Its class.
        training: What the source calls the training image.
        distance: As of `Nearness`.
        ratio: As of `Nearness`.
        pixels: Both, uint8 (2, C, S, S).
    """

    generated: int
    class_name: str
    training: str
    distance: float
    ratio: float
    pixels: torch.Tensor


@dataclass(frozen=True)
class MeasuredCopies:
    """What was measured of near copies.

    Args:
        findings: Numbers and verdict.
        generated: By space, of generated images.
        others: By space, of what they are compared with.
        pairs: By space, the pairs of least ratio, ascending.
    """

    findings: CopyFindings
    generated: dict[str, Nearness]
    others: dict[str, Nearness]
    pairs: dict[str, list[Pair]]


@neutral()
def measure_copies(
    dataset: D3HRDataset,
    training: MatchedImages,
    held_out: MatchedImages | None = None,
    teacher: str | None = None,
    progress: bool = True,
) -> MeasuredCopies:
    """Compare generated images, and held-out ones, with all training images.

    Args:
        dataset: The generated images.
        training: What the artifact was built from, as far as it is given.
        held_out: Images of the same classes that the artifact was not built from. Without them, training
            images are compared with the other training images (leave one out).
        teacher: Whose features are compared, too, as `load_teacher` takes it; None for pixels only.
        progress: Show a progress bar on stderr.

    Raises:
        ConfigError: A class has no held-out image, there are fewer than three training images, or the teacher
            takes other images.
        TeacherError: The teacher cannot be loaded, or does not know the classes.
        MissingExtraError: The libraries of the extra 'train' are missing, and a teacher is given.
        UnreadableImageError: A real image cannot be read.
    """
    info = dataset.artifact.info
    features = None if teacher is None else _teacher_features(dataset, teacher)
    reference = training if held_out is None else held_out
    numbers, labels = _chosen(dataset, reference)
    images, targets = dataset_tensors(dataset)
    pixels = reference.pixels(numbers, info.image_size, info.image_mode, info.inversion.resizing)
    both = torch.cat([images, reconstruct(dataset.model(), pixels)])
    everything = training.numbers()
    own = None
    if held_out is None:
        places = {number: place for place, number in enumerate(everything)}
        own = torch.tensor([-1] * len(images) + [places[number] for number in numbers])
    blocks = _blocks(dataset, training, everything, progress)
    found = measure_nearness(both, blocks, len(everything), features, own)
    generated = {space: nearness.part(0, len(images)) for space, nearness in found.items()}
    others = {space: nearness.part(len(images), len(both)) for space, nearness in found.items()}
    findings = CopyFindings(
        reference="held out" if held_out is not None else "leave one out",
        num_training=len(everything),
        num_behind=sum(info.counts),
        num_reference=len(numbers),
        num_neighbours=min(NEIGHBOURS, len(everything) - (held_out is None)),
        teacher=None if teacher is None else _public_name(teacher),
        spaces=compare_nearness(generated, targets, others, torch.tensor(labels), dataset.classes),
    )
    pairs = {space: _pairs(dataset, training, images, near) for space, near in generated.items()}
    return MeasuredCopies(findings, generated, others, pairs)


def _chosen(dataset: D3HRDataset, reference: MatchedImages) -> tuple[list[int], list[int]]:
    """Return the numbers of images of every class of a data set, and their labels there."""
    numbers, labels = [], []
    per_class = max(1, MAX_REFERENCE // len(dataset.classes))
    for label, class_label in enumerate(dataset.class_labels.tolist()):
        chosen = reference.chosen(class_label, per_class)
        if not chosen:
            raise ConfigError(
                f"there is no held-out image of the class {dataset.classes[label]!r}; add some, or leave the "
                "class out with classes=[...]"
            )
        numbers += chosen
        labels += [label] * len(chosen)
    return numbers, labels


def _blocks(
    dataset: D3HRDataset, training: MatchedImages, numbers: list[int], progress: bool
) -> Iterator[torch.Tensor]:
    info = dataset.artifact.info
    firsts = range(0, len(numbers), BLOCK)
    for first in tqdm(firsts, "comparing with training images", disable=not progress):
        part = numbers[first : first + BLOCK]
        yield training.pixels(part, info.image_size, info.image_mode, info.inversion.resizing)


def _teacher_features(dataset: D3HRDataset, name: str) -> Features:
    """Return images uint8 (B, C, H, W) -> features (B, D) of a teacher that knows the classes."""
    return load_judge(name, dataset.artifact.info, dataset.model().device).features


def _public_name(teacher: str) -> str:
    """Return what a teacher is called in what may be published: no folder of this machine."""
    kind, _, rest = teacher.partition(":")
    return Path(rest).name if kind == "local-dir" else teacher


def _pairs(
    dataset: D3HRDataset, training: MatchedImages, images: torch.Tensor, nearness: Nearness
) -> list[Pair]:
    """Return the pairs in which one training image stands out most."""
    info, numbers = dataset.artifact.info, training.numbers()
    pairs = []
    for place in nearness.ratio.argsort(stable=True)[:SHOWN_PAIRS].tolist():
        number = numbers[int(nearness.nearest[place])]
        (real,) = training.pixels([number], info.image_size, info.image_mode, info.inversion.resizing)
        pairs.append(
            Pair(
                generated=place,
                class_name=dataset.classes[int(dataset.targets[place])],
                training=training.name(number),
                distance=float(nearness.distance[place]),
                ratio=float(nearness.ratio[place]),
                pixels=torch.stack([images[place], real]),
            )
        )
    return pairs
