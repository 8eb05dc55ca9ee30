"""How many modes a class is given where nobody says: images -> a number that fits them, and why.

Groups are spread over modes where an artifact stores them, which is what trains the best students; so a build
stores some wherever they can be found.
"""

from __future__ import annotations

import math

import torch

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.sources.records import Images

# Images per class, on average, in which modes are sought.
IMAGES_FOR_MODES = 1000
# As many modes as the embedded artifact has, and fewer for classes of few images, so that each mode stands
# for some; none where a class has too few for five.
MOST_MODES = 50
IMAGES_PER_MODE = 20
FEWEST_IMAGES = 5 * IMAGES_PER_MODE


def choose_num_modes(images: Images, info: ArtifactInfo) -> tuple[int, str]:
    """Return the modes per class that fit images: a twentieth of the smallest class, at most fifty.

    At least ten images for each mode must be among those in which modes are sought, which are fewer than all
    where classes are of very different sizes.

    Args:
        images: What is built from, with the model's class labels.
        info: What is built; its `num_modes` plays no part.

    Returns:
        The number, 1 where none are stored, and a sentence that says why.
    """
    if not images.has_random_access:
        return 1, (
            "no modes are stored: a stream is not read in random order, which finding them takes; build from "
            "a copy on disk (without --streaming) to have some"
        )
    if images.labels is None:
        return 1, (
            f"no modes are stored: labels are known only when images are read, and {FEWEST_IMAGES} images of "
            "each class are wanted; --modes 10 stores ten all the same"
        )
    labels, num_classes = torch.tensor(images.labels), len(info.classes)
    counts = labels.bincount(minlength=num_classes)
    label = int(counts.argmin())
    smallest = f"the smallest class, {info.classes[label]!r}, has {int(counts[label]):,} images"
    chosen = images_for_modes(len(labels), num_classes, info.inversion.seed)
    fewest_chosen = int(labels[chosen].bincount(minlength=num_classes).min())
    modes = min(MOST_MODES, int(counts[label]) // IMAGES_PER_MODE, fewest_chosen // (IMAGES_PER_MODE // 2))
    if counts[label] < FEWEST_IMAGES or modes < 2:
        return 1, (
            f"no modes are stored: {smallest}, {fewest_chosen:,} of them among the {len(chosen):,} images in "
            f"which modes are sought, and {FEWEST_IMAGES} are wanted; --modes 2 stores two all the same"
        )
    elements = math.prod(info.latent_shape)
    megabytes = [
        4 * elements * len(chosen) / 1e6,
        2 * elements * num_classes * (modes + 1) * len(info.inversion.timesteps) / 1e6,
    ]
    return modes, (
        f"{modes} modes per class are stored: {smallest}. To find them takes the latents of {len(chosen):,} "
        f"images, {megabytes[0]:,.1f} MB of memory, and storing them {megabytes[1]:,.1f} MB; --modes 1 "
        "stores none"
    )


def images_for_modes(num_images: int, num_classes: int, seed: int) -> list[int]:
    """Return the numbers of the random images in which modes are sought, ascending."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "modes"))
    order = torch.randperm(num_images, generator=generator)
    chosen: list[int] = order[: IMAGES_FOR_MODES * num_classes].sort().values.tolist()
    return chosen
