"""The real images of a report: where they are -> PIL images by class label of the artifact.

Classes are matched by name, never by position: where an order differs, nothing else would tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision import datasets

from d3hr_datasets.class_list import ClassList
from d3hr_datasets.errors import ConfigError, UnreadableImageError
from d3hr_datasets.group_sampling import derive_seed
from d3hr_datasets.reading import resize_and_crop

ACCEPTED = "a folder with one folder per class, or torchvision:NAME:ROOT"


class RealImages:
    """Labelled real images whose classes are those of an artifact.

    Args:
        source: A folder with one folder per class, each named like the class (as "Dress", "003-Dress" or its
            WordNet ID; what is no letter or digit does not count), "torchvision:NAME:ROOT", or a data set of
            (PIL image, int) with `targets` and `classes`, as torchvision's are.
        class_list: The artifact's.

    Raises:
        ConfigError: There are no such images, or none of their classes is the artifact's, or two of them
            are the same.
    """

    def __init__(self, source: Any, class_list: ClassList) -> None:
        self.dataset = _open(source) if isinstance(source, (str, Path)) else source
        targets = getattr(self.dataset, "targets", getattr(self.dataset, "labels", None))
        if targets is None:
            raise ConfigError(f"{type(self.dataset).__name__} has no `targets`: its labels are not known")
        self.targets = [int(target) for target in targets]
        # ImageNet's classes are tuples of names, which two cranes share; its WordNet IDs tell all apart.
        names = getattr(self.dataset, "wnids", None) or getattr(self.dataset, "classes", None)
        names = names or list(map(str, range(max(self.targets) + 1)))
        self._members: dict[int, list[int]] = {}
        by_target = _match(names, class_list)
        for index, target in enumerate(self.targets):
            if target in by_target:
                self._members.setdefault(by_target[target], []).append(index)

    def read(self, class_label: int, count: int, image_size: int, image_mode: str) -> torch.Tensor:
        """Return `count` random images of a class, fewer if it has fewer, always the same ones.

        Returns:
            (N, C, S, S) uint8, S = `image_size`.

        Raises:
            ConfigError: The class has fewer than two images.
            UnreadableImageError: An image cannot be read.
        """
        members = self._members.get(class_label, [])
        if len(members) < 2:
            raise ConfigError(
                f"class label {class_label} has {len(members)} images, normality needs at least two; add "
                "images, or leave the class out with classes=[...] (--classes)"
            )
        generator = torch.Generator().manual_seed(derive_seed(0, class_label, "report"))
        order = torch.randperm(len(members), generator=generator)[:count].sort().values.tolist()
        pixels = [self._read(members[position], image_size, image_mode) for position in order]
        return torch.stack(pixels)

    def _read(self, index: int, image_size: int, image_mode: str) -> torch.Tensor:
        try:
            return resize_and_crop(self.dataset[index][0], image_size, image_mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            samples = getattr(self.dataset, "samples", None)
            where = f" ({samples[index][0]})" if samples else ""
            raise UnreadableImageError(
                f"image {index}{where} cannot be read: {error}; mend or remove it"
            ) from error


def _open(source: str | Path) -> Any:
    kind, _, rest = str(source).partition(":")
    if kind == "torchvision":
        name, _, root = rest.partition(":")
        found = getattr(datasets, name, None)
        if not isinstance(found, type) or not issubclass(found, datasets.VisionDataset) or not root:
            raise ConfigError(f"{str(source)!r} names no data set of torchvision; accepted: {ACCEPTED}")
        try:
            return found(root)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"torchvision's {name} cannot be opened in {root}: {error}. Nothing is downloaded here; "
                f"accepted: {ACCEPTED}"
            ) from error
    try:
        return datasets.ImageFolder(str(source))
    except OSError as error:
        raise ConfigError(f"there are no images in {source}: {error}; accepted: {ACCEPTED}") from error


def _match(names: Sequence[str], class_list: ClassList) -> dict[int, int]:
    """Return the class label of each target whose name is that of a class."""
    known: dict[str, set[int]] = {}
    for label, name in enumerate(class_list.names):
        known.setdefault(_plain(name), set()).add(label)
    for label, wnid in enumerate(class_list.wnids or ()):
        known.setdefault(wnid, set()).add(label)
    matched: dict[int, int] = {}
    for target, name in enumerate(names):
        labels = known.get(_plain(name)) or known.get(_plain(re.sub(r"^\d{3,}-", "", name))) or set()
        if len(labels) > 1 or labels & set(matched.values()):
            raise ConfigError(f"the class {name!r} of the images could be several classes; rename its folder")
        if labels:
            matched[target] = next(iter(labels))
    if not matched:
        raise ConfigError(
            f"no class of the images is one of the artifact: {list(names)[:10]} against "
            f"{list(class_list.names[:10])}; name the folders as the classes, or by WordNet ID"
        )
    return matched


def _plain(name: str) -> str:
    return re.sub(r"[^\w]|_", "", name).lower()
