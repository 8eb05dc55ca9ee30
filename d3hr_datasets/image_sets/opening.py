"""Anybody's distilled images -> an `ImageSet` in the labels of the real data set, before any training.

In: a folder, Parquet, shards, a name of torchvision or `datasets`, or a file of tensors; and the classes of
the real data set. Out: uint8 images with the channels that the student takes, and real labels. What is not
certain is refused with what mends it; what was converted or assumed is told in `notes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.matching import LabelMap
from d3hr_datasets.config.checks import check_choice
from d3hr_datasets.errors import SourceError
from d3hr_datasets.image_sets.checked_images import CheckedImages, Sizes
from d3hr_datasets.image_sets.class_order import (
    ClassOrder,
    check_all_there,
    labels_by_name,
    labels_by_number,
)
from d3hr_datasets.image_sets.folders import FORMS, open_set
from d3hr_datasets.image_sets.image_set import ImageSet
from d3hr_datasets.image_sets.pixel_format import Channels, Normalization, tensor_to_uint8, to_channels
from d3hr_datasets.image_sets.tensor_files import SUFFIXES, read_tensor_file
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import is_file
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.opening import OpenedSource, SourceOptions
from d3hr_datasets.sources.relabel import relabel
from d3hr_datasets.students.views import TensorImages


@dataclass(frozen=True)
class OpenedImageSet(ImageSet):
    """Images with labels, and what a user should know of how they were read.

    Args:
        notes: Sentences to show: what was converted or assumed, and what is unusual.
    """

    notes: tuple[str, ...] = ()


@neutral()
def open_image_set(
    where: str | Path,
    classes: ClassList,
    channels: int,
    *,
    image_size: int | None = None,
    split: str = "train",
    image_column: str | None = None,
    label_column: str | None = None,
    class_order: ClassOrder = "name",
    subset: Sequence[str | int] | None = None,
    normalized: Normalization | None = None,
) -> OpenedImageSet:
    """Open anybody's images as a student sees them.

    Every image is read once here, so that a bad one is found before a student is trained.

    Args:
        where: A folder with one folder per class; Parquet (a folder, a file, "hfds/FOLDER" or
            "hfds/ORG/NAME"); WebDataset shards; "torchvision:NAME[:ROOT]"; "datasets:NAME_OR_FOLDER"; or a
            `.pt`, `.pth` or `.safetensors` file of tensors (`tensor_files`).
        classes: All classes of the real data set, by label.
        channels: 1 or 3, as the student takes images; `pixel_format` says how they get them.
        image_size: Side of the images that the student sees, for a note; they are not resized here.
        split: Of a folder with splits, of torchvision and of `datasets`.
        image_column: Of Parquet, if there is more than one of images.
        label_column: Of Parquet, if it is not the only one of classes.
        class_order: "name" matches names with those of the real data set (`class_order`); "same" says that
            the names, sorted, are in the order of the real labels.
        subset: Classes that are wanted, by name, WordNet ID or real label; the label of each is its place
            here. Images of other classes are left out. All classes by default.
        normalized: (mean, std) that float tensors were normalised with, each with a value per channel.

    Returns:
        Images as uint8 (channels, H, W), with the names and WordNet IDs of the wanted classes, and notes.

    Raises:
        SourceError: The set cannot be opened, is empty, lacks classes, or its labels are not certain.
        UnreadableImageError: An image cannot be read, or not be converted without a loss.
        ConfigError: An argument is not accepted.
        MissingExtraError: Parquet or shards are asked for, and `datasets` is not installed.
    """
    check_choice("channels", channels, Channels)
    check_choice("class_order", class_order, ClassOrder)
    real, path = _wanted(classes, subset), expand_user(where)
    images: TensorImages | CheckedImages
    if path.suffix in SUFFIXES and is_file(path):
        images, sizes, notes = _of_tensors(path, real, channels, normalized)
    else:
        if normalized is not None:
            raise SourceError(
                f"normalized is for files of tensors ({', '.join(SUFFIXES)}), not for {where!s:.300}"
            )
        options = SourceOptions(split, image_column=image_column, label_column=label_column)
        opened = open_set(str(where), options, classes)
        images, sizes, notes = _of_source(opened, str(where), real, classes, class_order, channels)
    check_all_there(images.targets, real, str(where))
    notes = (*notes, *_unusual(sizes, images.targets, image_size))
    wnids = None if real.wnids is None else list(real.wnids)
    return OpenedImageSet(images, list(real.names), wnids, notes=notes)


def _wanted(classes: ClassList, subset: Sequence[str | int] | None) -> ClassList:
    if subset is None:
        return classes
    labels = classes.labels(subset)
    wnids = None if classes.wnids is None else tuple(classes.wnids[label] for label in labels)
    return ClassList(tuple(classes.names[label] for label in labels), wnids)


def _of_tensors(
    path: Path, real: ClassList, channels: int, normalized: Normalization | None
) -> tuple[TensorImages, Sizes, tuple[str, ...]]:
    stored = read_tensor_file(path)
    number, num_classes = len(stored.images), len(real.names)
    if stored.num_classes not in (None, num_classes):
        raise SourceError(
            f"{path} has images or labels of {stored.num_classes} classes by its shape, the real data set "
            f"has {num_classes}; give the data set that they are of, or its subset"
        )
    if stored.labels is not None:
        labels_by_number(stored.labels.tolist(), real, str(path))
        labels, order = (
            stored.labels,
            f"{path}: labels are numbers, taken as those of {list(real.names)[:5]} ...",
        )
    else:
        if number % num_classes:
            raise SourceError(
                f"{path} has {number} images without labels for {num_classes} classes; accepted: as "
                "many images of each class, class by class, or labels beside the images: "
                "torch.save({'images': images, 'labels': labels}, 'FILE.pt')"
            )
        labels = torch.arange(num_classes).repeat_interleave(number // num_classes)
        order = (
            f"{path} has no labels; assumed: {number // num_classes} images of each class, class by class in "
            "the order of the real labels"
        )
    pixels, notes = tensor_to_uint8(stored.images, str(path), normalized)
    if pixels.shape[1] != channels:
        converted = [
            to_channels(image, channels, f"image {place} of {path}") for place, image in enumerate(pixels)
        ]
        pixels = torch.stack(converted)
    sizes: Sizes = Counter({(pixels.shape[2], pixels.shape[3]): number})
    return TensorImages(pixels, labels, list(real.names)), sizes, (order, *notes)


def _of_source(
    opened: OpenedSource,
    where: str,
    real: ClassList,
    everything: ClassList,
    order: ClassOrder,
    channels: int,
) -> tuple[TensorImages | CheckedImages, Sizes, tuple[str, ...]]:
    images, notes = opened.images, []
    if not images.num_images:
        raise SourceError(f"{where} has no images; accepted: {FORMS}")
    found: LabelMap
    if opened.classes is None:
        numbers = range(len(real.names)) if images.labels is None else images.labels
        found = labels_by_number(numbers, real, where)
        notes.append(f"{where}: labels are numbers, taken as those of {list(real.names)[:5]} ...")
    else:
        found = labels_by_name(opened.classes, real, everything, order, where)
        beyond = [label for label in images.labels or () if label not in found]
        if beyond:
            raise SourceError(
                f"{where} has label {beyond[0]}, and names for 0 to {len(found) - 1}; give each image "
                "one of these"
            )
    relabelled: Any = relabel(images, found)
    if relabelled.num_images < images.num_images:
        left_out = images.num_images - relabelled.num_images
        notes.append(f"{where}: {left_out} images of classes that are not in the subset are left out")
    checked = CheckedImages(relabelled, channels)
    pixels = checked.stacked()
    if pixels is None:
        return checked, checked.sizes, tuple(notes)
    tensors = TensorImages(pixels, torch.tensor(checked.targets), list(real.names))
    return tensors, checked.sizes, tuple(notes)


def _unusual(sizes: Sizes, labels: Sequence[int], image_size: int | None) -> tuple[str, ...]:
    """Return notes on sizes that a student does not see, and on classes with more images than others."""
    notes = []
    if len(sizes) > 1 or (image_size is not None and (image_size, image_size) not in sizes):
        shown = ", ".join(f"{height} x {width}" for (height, width), _ in sizes.most_common(3))
        seen = "" if image_size is None else f" to {image_size} x {image_size}, as the student sees them"
        notes.append(f"images have {len(sizes)} size(s), {shown} the most frequent; they are resized{seen}")
    counts = Counter(labels).values()
    if min(counts) != max(counts):
        notes.append(f"classes have {min(counts)} to {max(counts)} images")
    return tuple(notes)
