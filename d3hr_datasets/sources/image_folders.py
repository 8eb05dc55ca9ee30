"""A folder with one folder per class -> images, in the order of torchvision's `ImageFolder`.

`ImageFolder` follows links wherever they lead, also to a folder above, whose images it then finds again and
again, some under another class. So folders are looked at first: nothing may be there twice.
"""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image
from torchvision.datasets import ImageFolder

from d3hr_datasets.errors import SourceError
from d3hr_datasets.sources.image_files import open_image
from d3hr_datasets.sources.records import Images
from d3hr_datasets.sources.user_datasets import as_images, class_names


def open_image_folder(folder: Path, allow_empty: bool = False) -> tuple[Images, tuple[str, ...]]:
    """Return the images of a folder that has one folder per class, read by `open_image`, and these names.

    Args:
        folder: The folder.
        allow_empty: Take a class folder without images for a class.

    Raises:
        SourceError: There are none, or a file or a folder is there twice by a link.
    """
    try:
        check_links(folder)
        found = ImageFolder(str(folder), loader=load_image, allow_empty=allow_empty)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{folder} is no folder of images, with one folder per class: {error}") from error
    return as_images(found), class_names(found) or ()


def load_image(path: str) -> Image.Image:
    """Return the image of a file, as loaders of torchvision's data sets do."""
    return open_image(Path(path))


def check_links(folder: Path) -> None:
    """Check that no file and no folder below a folder is reached in two ways.

    Raises:
        SourceError: One is: a link leads to where another one leads, or to what is there itself.
        OSError: A folder cannot be read.
    """
    folders: dict[str, str] = {os.path.realpath(folder): str(folder)}
    linked: dict[str, str] = {}
    real: set[str] = set()
    for parent, names, files in os.walk(folder, followlinks=True):
        above = os.path.realpath(parent)
        for name in names:
            _note(folders, os.path.realpath(os.path.join(above, name)), os.path.join(parent, name))  # noqa: PTH118
        for name in files:
            path = os.path.join(above, name)  # noqa: PTH118 (there may be millions)
            if os.path.islink(path):  # noqa: PTH114
                _note(linked, os.path.realpath(path), os.path.join(parent, name))  # noqa: PTH118
            else:
                real.add(path)
    for target, link in linked.items():
        if target in real:
            raise SourceError(f"{link} leads to {target}, which is an image here itself; remove the link")


def _note(found: dict[str, str], target: str, path: str) -> None:
    if target in found:
        raise SourceError(
            f"{path} and {found[target]} are the same, {target}: images would be read twice, and under two "
            "classes; remove the link"
        )
    found[target] = path
