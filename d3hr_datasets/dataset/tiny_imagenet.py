"""Tiny ImageNet's labelled test images, which torchvision has not.

In: the folder that the official archive unpacks to. Out: a data set of torchvision, of (RGB image, label).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision.datasets import DatasetFolder

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.errors import RealTestSetError
from d3hr_datasets.io.untrusted_files import is_file, is_folder, open_file, read_file

ANNOTATIONS = "val_annotations.txt"
MAX_ANNOTATION_BYTES = 2**24  # of 10,000 images; the official file has 0.4 MB
MAX_IMAGE_BYTES = 2**26
EXTENSIONS = (".jpeg", ".jpg", ".png")


class TinyImageNetValidation(DatasetFolder):
    """The 10,000 validation images of Tiny ImageNet. Its test images have no labels: these are tested on.

    Either layout is read: `val/images/` with `val/val_annotations.txt`, as the official archive unpacks, or
    `val/WNID/`, as many scripts sort it. Labels are in the order of WordNet IDs.

    Args:
        root: The folder that holds `val/`, or the one that holds `tiny-imagenet-200/`.
        transform: Applied to the PIL image, RGB.
        target_transform: Applied to the int label.

    Raises:
        RealTestSetError: There is no such folder, or its WordNet IDs are not those of Tiny ImageNet.
    """

    def __init__(
        self,
        root: str,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        places = [Path(root) / "val", Path(root) / "tiny-imagenet-200" / "val"]
        found = [place for place in places if is_folder(place)]
        if not found:
            raise RealTestSetError(f"there is no folder {places[0]}")
        super().__init__(str(found[0]), self.loader, EXTENSIONS, transform, target_transform)

    @staticmethod
    def loader(path: str) -> Image.Image:
        """Read an image as RGB."""
        with open_file(Path(path), MAX_IMAGE_BYTES) as file:
            return Image.open(file, formats=("JPEG", "PNG")).convert("RGB")

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the WordNet IDs of Tiny ImageNet; those of the folder must be the same."""
        wnids = list(ClassList.packaged("tiny-imagenet").wnids or ())
        if is_file(Path(directory) / ANNOTATIONS):
            there = {wnid for _, wnid in _annotations(Path(directory))}
        else:
            there = {path.name for path in Path(directory).iterdir() if path.is_dir()}
        missing, others = sorted(set(wnids) - there), sorted(there - set(wnids))
        if missing or others:
            raise RealTestSetError(
                f"the WordNet IDs in {directory} are not the {len(wnids)} of Tiny ImageNet: "
                + (f"{missing[:5]} are missing" if missing else f"it also has {others[:5]}")
            )
        return wnids, {wnid: label for label, wnid in enumerate(wnids)}

    @staticmethod
    def make_dataset(
        directory: str | Path, class_to_idx: dict[str, int], *arguments: Any, **options: Any
    ) -> list[tuple[str, int]]:
        """Return (path, label) of every image."""
        folder = Path(directory)
        if not is_file(folder / ANNOTATIONS):
            return DatasetFolder.make_dataset(directory, class_to_idx, *arguments, **options)
        return [(str(folder / "images" / name), class_to_idx[wnid]) for name, wnid in _annotations(folder)]


def _annotations(folder: Path) -> list[tuple[str, str]]:
    """Return file name and WordNet ID of each line: NAME, WNID and a box, between tabs."""
    rows = []
    path = folder / ANNOTATIONS
    lines = read_file(path, MAX_ANNOTATION_BYTES).decode("utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        name, *rest = line.split("\t")
        if not rest or Path(name).name != name:
            raise RealTestSetError(
                f"{path}:{number} is {line[:80]!r}; accepted: NAME, WNID and a box, by tabs"
            )
        if not is_file(folder / "images" / name):
            raise RealTestSetError(f"{path}:{number} names {name}, which is not in {folder / 'images'}")
        rows.append((name, rest[0]))
    return rows
