"""How many modes a class is given where nobody says, and in which images they are sought.

Groups are spread over modes where an artifact stores them, which is what trains the best students; so a build
stores some wherever they can be found.
"""

from __future__ import annotations

import math

import torch

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.sources.records import Images

# Images of a class in which modes are sought, and of each of its modes: the mean of n images is off by 1/n of
# their variance. How far modes of so many are from modes of all, `recipes.evaluate.modes` measures.
IMAGES_FOR_MODES = 1000
IMAGES_PER_CENTROID = 200
SHORT = 10  # a class with a tenth of the images that are wanted, and no more, is looked at again
# As many modes as the embedded artifact has, and fewer for classes of few images, so that each mode stands
# for some; none where a class has too few for five.
MOST_MODES = 50
IMAGES_PER_MODE = 20
FEWEST_IMAGES = 5 * IMAGES_PER_MODE


def choose_num_modes(images: Images, info: ArtifactInfo, tolerance: float | None = None) -> tuple[int, str]:
    """Return the modes per class that fit images: a twentieth of the smallest class, at most fifty.

    None with a tolerance: the means of M modes take up to M times the images that the mean of a class does,
    which would make most builds full ones.

    Args:
        images: What is built from, with the model's class labels.
        info: What is built; its `num_modes` plays no part.
        tolerance: Of the build.

    Returns:
        The number, 1 where none are stored, and a sentence that says why.
    """
    if images.labels is None:
        return 1, (
            f"no modes are stored: labels are known only when images are read, and {FEWEST_IMAGES} images of "
            "each class are wanted; --modes 10 stores ten all the same"
        )
    if tolerance is not None:
        return 1, (
            f"no modes are stored: to a tolerance of {tolerance:g} the means of ten modes take up to ten "
            "times the images that the mean of a class does; --modes 10 stores ten all the same"
        )
    counts = torch.tensor(images.labels).bincount(minlength=len(info.classes))
    label = int(counts.argmin())
    smallest = f"the smallest class, {info.classes[label]!r}, has {int(counts[label]):,} images"
    modes = min(MOST_MODES, int(counts[label]) // IMAGES_PER_MODE)
    if counts[label] < FEWEST_IMAGES:
        return 1, (
            f"no modes are stored: {smallest}, and {FEWEST_IMAGES} are wanted; --modes 2 stores two all the "
            "same"
        )
    elements = math.prod(info.latent_shape)
    sought = int(counts.clamp(max=images_of_class(modes)).sum())
    megabytes = [
        4 * elements * sought / 1e6,
        2 * elements * len(counts) * (modes + 1) * len(info.inversion.timesteps) / 1e6,
    ]
    return modes, (
        f"{modes} modes per class are stored: {smallest}. To find them takes the latents of {sought:,} "
        f"images, {megabytes[0]:,.1f} MB on the disk meanwhile, and storing them {megabytes[1]:,.1f} MB; "
        "--modes 1 stores none"
    )


def images_of_class(num_modes: int) -> int:
    """Return in how many images of a class modes are sought, where it has as many."""
    return max(IMAGES_FOR_MODES, IMAGES_PER_CENTROID * num_modes)


def images_for_modes(images: Images, info: ArtifactInfo) -> list[int]:
    """Return the numbers of the random images in which modes are sought, ascending.

    Args:
        images: With random access. Where labels are not known, a class has as many as are wanted on average.
        info: What is built.
    """
    generator = torch.Generator().manual_seed(derive_seed(info.inversion.seed, "modes"))
    order = torch.randperm(images.num_images or 0, generator=generator)
    wanted = images_of_class(info.num_modes)
    if images.labels is None:
        chosen = order[: wanted * len(info.classes)]
    else:
        labels = torch.tensor(images.labels)[order]
        by_class = labels.argsort(stable=True)
        counts = labels.bincount(minlength=len(info.classes))
        firsts = counts.cumsum(0) - counts
        places = torch.arange(len(order)) - firsts[labels[by_class]]  # of each image in its class
        chosen = order[by_class[places < wanted]]
    numbers: list[int] = chosen.sort().values.tolist()
    return numbers


def short_classes(counts: torch.Tensor, share: float, info: ArtifactInfo) -> dict[int, float]:
    """Return the classes of which too few images were drawn to find modes in, each with a larger share.

    Args:
        counts: (K,), images of each class that were drawn.
        share: Of all images, of whatever class, that was drawn; 1 if there are no others.
        info: What is built.

    Returns:
        By label, the share of its images that has about as many as are wanted; all where the modes would
        have no image each.
    """
    wanted = images_of_class(info.num_modes)
    if share >= 1:
        return {}
    return {
        label: 1.0 if count <= info.num_modes else min(1.0, share * wanted / count)
        for label, count in enumerate(counts.tolist())
        if count <= max(info.num_modes, wanted // SHORT)
    }


def share_for_modes(images: Images, info: ArtifactInfo) -> float:
    """Return the share of the images of a stream in which modes are sought: all where nobody knows them."""
    if not images.num_images:
        return 1.0
    return min(1.0, images_of_class(info.num_modes) * len(info.classes) / images.num_images)
