"""Real images beside an artifact: where they are -> pixels by class label of the artifact.

Classes are matched by name, never by position: where an order differs, nothing else would tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.config.settings import Resizing
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.opening import SourceOptions, open_source
from d3hr_datasets.sources.records import ImageRecord
from d3hr_datasets.sources.resizing import read_pixels
from d3hr_datasets.sources.user_datasets import TorchvisionLike


class MatchedImages:
    """Labelled real images whose classes are those of an artifact.

    Args:
        source: What `sources.open_source` takes, as `d3hr build` does, or a data set of (PIL image, int)
            with `targets` and `classes`, as torchvision's are. Classes are named as the artifact's are, by a
            synonym or by WordNet ID; of folders, also as exports spell them ("003-Bee_wasp").
        class_list: The artifact's.
        split: Of a source that has splits, torchvision's and those of `datasets`.

    Raises:
        SourceError: There are no such images.
        ConfigError: Their labels are not known, none of their classes is the artifact's, or two of them are
            the same.
    """

    def __init__(
        self, source: str | Path | TorchvisionLike, class_list: ClassList, split: str = "train"
    ) -> None:
        opened = open_source(source, SourceOptions(split))
        self._images, labels = opened.images, opened.images.labels
        if labels is None:
            raise ConfigError(f"{opened.description['name']} has no `targets`: its labels are not known")
        if not labels:
            raise ConfigError(f"{opened.description['name']} has no images")
        self._members: dict[int, list[int]] = {}
        matched = _match(opened.classes or list(map(str, range(max(labels) + 1))), class_list)
        for index, label in enumerate(labels):
            if label in matched:
                self._members.setdefault(matched[label], []).append(index)

    @neutral()
    def records(self, class_label: int, count: int, at_least: int = 1) -> list[ImageRecord]:
        """Return `count` random images of a class, or all if it has fewer, in random order, always the same.

        Raises:
            ConfigError: The class has fewer than `at_least`.
        """
        members = self._members.get(class_label, [])
        if len(members) < at_least:
            raise ConfigError(
                f"class label {class_label} has {len(members)} images, and at least {at_least} are needed; "
                "add images of it"
            )
        return [next(self._images.records(0, number)) for number in self.chosen(class_label, count)]

    @neutral()
    def read(self, class_label: int, count: int, image_size: int, image_mode: str) -> torch.Tensor:
        """Read what `records` returns, at least two images.

        Returns:
            (N, C, S, S) uint8, S = `image_size`.

        Raises:
            ConfigError: The class has fewer than two images.
            UnreadableImageError: An image cannot be read.
        """
        records = self.records(class_label, count, at_least=2)
        return torch.stack([read_pixels(record, image_size, image_mode)[0] for record in records])

    def numbers(self) -> list[int]:
        """Return the numbers of all images of the artifact's classes, ascending."""
        return sorted(number for members in self._members.values() for number in members)

    @neutral()
    def chosen(self, class_label: int, count: int) -> list[int]:
        """Return the numbers of `count` random images of a class, or of all, always in the same order."""
        members = self._members.get(class_label, [])
        generator = torch.Generator().manual_seed(derive_seed(0, class_label, "report"))
        order = torch.randperm(len(members), generator=generator)[:count].tolist()
        return [members[position] for position in order]

    @neutral()
    def pixels(
        self, numbers: Sequence[int], image_size: int, image_mode: str, resizing: Resizing = "bicubic"
    ) -> torch.Tensor:
        """Return some images, by their numbers: uint8 (N, C, S, S), S = `image_size`.

        Raises:
            UnreadableImageError: An image cannot be read.
        """
        records = [next(self._images.records(0, number)) for number in numbers]
        return torch.stack([read_pixels(record, image_size, image_mode, resizing)[0] for record in records])

    def name(self, number: int) -> str:
        """Return what the source calls an image: its file below the source's folder, or its number."""
        return next(self._images.records(0, number)).name


def _match(names: Sequence[str], class_list: ClassList) -> dict[int, int]:
    """Return the class label of each target whose name, or that of its folder, is that of a class."""
    matched: dict[int, int] = {}
    for target, name in enumerate(names):
        label = class_list.find_folder(name)
        if label in matched.values():
            raise ConfigError(f"the class {name!r} of the images could be several classes; rename its folder")
        if label is not None:
            matched[target] = label
    if not matched:
        raise ConfigError(
            f"no class of the images is one of the artifact: {list(names)[:10]} against "
            f"{list(class_list.names[:10])}; name the folders as the classes, or by WordNet ID"
        )
    return matched
