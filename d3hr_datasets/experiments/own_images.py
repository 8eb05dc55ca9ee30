"""Images of anybody's that a student sees: `source="images:SET"` -> images in the real labels.

In: settings of a student, with what `open_image_set` takes as SET. Out: the images, and how many a class has.
"""

from __future__ import annotations

from typing import Any

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.experiments.protocol_files import choose_protocol
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.image_sets.opening import OpenedImageSet, open_image_set
from d3hr_datasets.image_sets.training_sets import check_real_images, real_images

PREFIX = "images:"


def own_images(settings: StudentSettings) -> OpenedImageSet:
    """Return the images of a student that sees a set of anybody's.

    Raises:
        SourceError: The set cannot be opened, or its classes are not certainly those of the real images.
        UnreadableImageError: An image cannot be read, or not be converted without a loss.
    """
    check_real_images(settings)
    real = real_images(settings, train=False)
    return open_image_set(
        settings.source.removeprefix(PREFIX),
        ClassList(tuple(real.classes), None if real.wnids is None else tuple(real.wnids)),
        settings.channels,
        image_size=settings.image_size,
        class_order=settings.class_order,
        normalized=(settings.mean, settings.std) if settings.normalized else None,
    )


def settings_of_images(
    where: str, protocol: str, dataset: str, changes: dict[str, Any]
) -> tuple[dict[str, Any], OpenedImageSet]:
    """Return what a set of anybody's changes in the settings of a protocol: `source` and `ipc`.

    `ipc` is the number of images of a class, the rounded mean where classes have different numbers.

    Args:
        where: As `open_image_set` takes it.
        protocol: A packaged protocol; says how many channels a student takes.
        dataset: The real data set, as `choose_protocol` takes it.
        changes: Settings to change.

    Returns:
        Settings, and the images.
    """
    source = f"{PREFIX}{where}"
    settings = choose_protocol(protocol, dataset, 1, {**changes, "source": source}).settings()
    images = own_images(settings)
    return {"source": source, "ipc": max(1, round(len(images.images) / len(images.classes)))}, images
