"""Whether a set holds near copies of training images: a data set and real images -> findings and pairs.

Generated images came out of a VAE's decoder, which leaves its mark: without fine noise an image is a little
nearer to others in pixels, and its features may move away. So what they are compared with, held-out images,
is encoded and decoded by the same VAE. Training images stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from d3hr_datasets.copies.comparisons import compare_nearness
from d3hr_datasets.copies.findings import HELD_OUT, LEAVE_ONE_OUT, CopyFindings
from d3hr_datasets.copies.nearness import (
    NEIGHBOURS,
    PIXELS,
    Features,
    Nearness,
    measure_nearness,
    pixel_distances,
)
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.image_sets.generated_images import dataset_tensors, reconstruct
from d3hr_datasets.image_sets.judge import load_judge
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.report.shared_images import SharedImages
from d3hr_datasets.sources.matched_images import MatchedImages

# Images that generated ones are compared with, as many of each class: `ENOUGH` in all, or `ENOUGH_OF_CLASS`
# of each, so that the nearest one is the hundredth part, but no more than `MAX_REFERENCE` for that.
ENOUGH, ENOUGH_OF_CLASS, MAX_REFERENCE = 5000, 100, 20_000
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
        pairs: By space, the pairs of images that stand out, then others, each by ascending ratio.
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
            images are compared with the other training images (leave one out), and there is no verdict.
        teacher: Whose features are compared, too, as `load_teacher` takes it; None for pixels only.
        progress: Show a progress bar on stderr.

    Raises:
        ConfigError: A class has no held-out image, most held-out images are training images, there are fewer
            than three training images, or the teacher takes other images.
        TeacherError: The teacher cannot be loaded, or does not know the classes.
        MissingExtraError: The libraries of the extra 'train' are missing, and a teacher is given.
        UnreadableImageError: A real image cannot be read.
    """
    info = dataset.artifact.info
    features = None if teacher is None else _teacher_features(dataset, teacher)
    reference = training if held_out is None else held_out
    numbers, labels = _chosen(dataset, reference)
    images, targets = dataset_tensors(dataset)
    pixels = _read(dataset, reference, numbers)
    both = torch.cat([images, reconstruct(dataset.model(), pixels)])
    everything = training.numbers()
    own = _own_places(len(images), everything, numbers) if held_out is None else None
    shared = SharedImages(pixels[:0] if held_out is None else pixels)
    blocks = shared.looked_for(_blocks(dataset, training, everything, progress))
    found = measure_nearness(both, blocks, len(everything), features, own)
    generated = {space: nearness.part(0, len(images)) for space, nearness in found.items()}
    others = {space: nearness.part(len(images), len(both)) for space, nearness in found.items()}

    def read(places: list[int]) -> torch.Tensor:
        return _read(dataset, training, [everything[place] for place in places])

    findings = CopyFindings(
        reference=LEAVE_ONE_OUT if held_out is None else HELD_OUT,
        num_training=len(everything),
        num_behind=sum(info.counts),
        num_reference=len(numbers),
        num_shared=shared.number,
        num_neighbours=min(NEIGHBOURS, len(everything) - (held_out is None)),
        teacher=None if teacher is None else _public_name(teacher),
        within_vae=within_vae(generated[PIXELS], read, dataset.model()),
        spaces=compare_nearness(
            generated, targets, others, torch.tensor(labels), dataset.classes, held_out is not None
        ),
    )
    pairs = {
        space: _pairs(dataset, training, images, near, findings.named(space))
        for space, near in generated.items()
    }
    return MeasuredCopies(findings, generated, others, pairs)


@neutral()
def within_vae(
    nearness: Nearness, read: Callable[[list[int]], torch.Tensor], model: LatentDiffusion
) -> tuple[int, ...]:
    """Return the numbers of images that are as near to a training image as this comes out of the VAE.

    A model that has a training image by heart gives what its VAE makes of it, and no nearer image.

    Args:
        nearness: Of N images, in pixels.
        read: Numbers of training images, as `nearness` counts them, to uint8 (B, C, S, S).
        model: Whose VAE it is.
    """
    nearest, places = nearness.nearest.unique(return_inverse=True)
    limits = []
    for block in nearest.split(BLOCK):
        real = read(block.tolist())
        limits.append(pixel_distances(real, reconstruct(model, real)))
    return tuple((nearness.distance <= torch.cat(limits)[places]).nonzero().flatten().tolist())


def _own_places(num_images: int, everything: list[int], numbers: list[int]) -> torch.Tensor:
    """Return the places of training images among all, after -1 for each image that is none."""
    places = {number: place for place, number in enumerate(everything)}
    return torch.tensor([-1] * num_images + [places[number] for number in numbers])


def _chosen(dataset: D3HRDataset, reference: MatchedImages) -> tuple[list[int], list[int]]:
    """Return the numbers of images of every class of a data set, and their labels there."""
    numbers, labels = [], []
    num_classes = len(dataset.classes)
    of_many = min(ENOUGH_OF_CLASS, MAX_REFERENCE // num_classes)
    per_class = max(1, ENOUGH // num_classes, of_many)
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
    firsts = range(0, len(numbers), BLOCK)
    for first in tqdm(firsts, "comparing with training images", disable=not progress):
        yield _read(dataset, training, numbers[first : first + BLOCK])


def _read(dataset: D3HRDataset, images: MatchedImages, numbers: list[int]) -> torch.Tensor:
    """Return real images by their numbers, as the artifact's are: uint8 (N, C, S, S)."""
    info = dataset.artifact.info
    return images.pixels(numbers, info.image_size, info.image_mode, info.inversion.resizing)


def _teacher_features(dataset: D3HRDataset, name: str) -> Features:
    """Return images uint8 (B, C, H, W) -> features (B, D) of a teacher that knows the classes."""
    return load_judge(name, dataset.artifact.info, dataset.model().device).features


def _public_name(teacher: str) -> str:
    """Return what a teacher is called in what may be published: no folder of this machine."""
    kind, _, rest = teacher.partition(":")
    return Path(rest).name if kind == "local-dir" else teacher


def _pairs(
    dataset: D3HRDataset,
    training: MatchedImages,
    images: torch.Tensor,
    nearness: Nearness,
    named: tuple[int, ...],
) -> list[Pair]:
    """Return the pairs of named images, then those in which one training image stands out most."""
    numbers = training.numbers()
    by_ratio = nearness.ratio.argsort(stable=True).tolist()
    first, pairs = set(named), []
    for place in sorted(by_ratio, key=lambda place: place not in first)[:SHOWN_PAIRS]:
        number = numbers[int(nearness.nearest[place])]
        (real,) = _read(dataset, training, [number])
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
