"""Real images: Fashion-MNIST through torchvision, or any folder of class folders.

In: a name or a folder, and a split. Out: `images` as uint8 tensors (N, C, H, W) and `targets` as int64,
both in memory.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets
from tqdm import tqdm

from d3hr_datasets.classes.class_list import packaged_subset
from d3hr_datasets.classes.folders import without_number
from d3hr_datasets.errors import ConfigError, ImagesNotFoundError, UnreadableImageError
from d3hr_datasets.image_sets.image_set import ImageSet
from d3hr_datasets.io.atomic import replace_file
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.image_folders import open_image_folder
from d3hr_datasets.sources.records import Images
from d3hr_datasets.sources.relabel import relabel
from d3hr_datasets.sources.resizing import resize_and_crop

# Where Debian's package dataset-fashion-mnist puts the IDX files.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
HELD_OUT = 10_000  # of the 60,000 training images, for every choice; the test set only fills tables


NAMED = ("fashion-mnist", "cifar10", "cifar100")  # a folder of one of these names is not looked at


def to_rgb(image: Image.Image, where: str) -> Image.Image:
    """Return an image in RGB.

    Raises:
        UnreadableImageError: It has more than 8 bits per channel, which Pillow would clip.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        raise UnreadableImageError(
            f"{where} has more than 8 bits per channel (mode {image.mode}); convert it to 8 bits per channel"
        )
    return image.convert("RGB")


class FolderImages(Dataset[tuple[Image.Image, int]]):
    """Images of class folders as a data set: in RGB, each read when it is asked for.

    Args:
        images: Of `open_image_folder`, perhaps with other labels.
    """

    def __init__(self, images: Images) -> None:
        self._images = images
        self.targets = list(images.labels or ())

    def __len__(self) -> int:
        return len(self.targets)

    def identity(self) -> str:
        """Return a digest of names, sizes and times of change of the files."""
        return self._images.identity_of(range(len(self)))

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        record = next(self._images.records(0, index))
        image, label = record.read()
        return to_rgb(image, record.where), label


def fashion_mnist(train: bool, root: str | Path = "data", download: bool = False) -> datasets.FashionMNIST:
    """Return torchvision's Fashion-MNIST, from `root`, from Debian's package, or by download.

    Raises:
        ImagesNotFoundError: It is in neither place and `download` is False.
    """
    if not download:
        provide_fashion_mnist(root)
    return datasets.FashionMNIST(str(root), train=train, download=download)


def provide_fashion_mnist(root: str | Path = "data") -> None:
    """Have the files of torchvision's Fashion-MNIST in `root`: unpacked from Debian's package if need be.

    Raises:
        ImagesNotFoundError: They are in neither place.
    """
    raw = Path(root) / "FashionMNIST" / "raw"
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    if all((raw / name).exists() for name in names):
        return
    if not all((DEBIAN_FASHION_MNIST / f"{name}.gz").exists() for name in names):
        raise ImagesNotFoundError(
            f"Fashion-MNIST is not in {raw} nor in {DEBIAN_FASHION_MNIST}. On Debian or Ubuntu: "
            '`apt-get install dataset-fashion-mnist`; elsewhere `python -c "from torchvision.datasets import '
            f'FashionMNIST; FashionMNIST({str(root)!r}, download=True)"`'
        )
    raw.mkdir(parents=True, exist_ok=True)
    for name in names:
        with gzip.open(DEBIAN_FASHION_MNIST / f"{name}.gz") as source:
            data = source.read()
        replace_file(raw / name, lambda path, data=data: path.write_bytes(data))  # type: ignore[misc]


@neutral()
def split_indices(count: int, held_out: int, split: str) -> torch.Tensor:
    """Return the ascending indices of "train" or "held-out", a fixed random split of `count` images."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return (order[:held_out] if split == "held-out" else order[held_out:]).sort().values


@neutral()
def load_images(
    source: str,
    split: str,
    image_size: int,
    channels: int,
    download: bool = False,
    root: str | Path = "data",
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Return (images, targets, class names) of one split.

    Args:
        source: "fashion-mnist", or a folder with one folder per class.
        split: "train" (without the held-out part), "held-out", "train+held-out" or "test". A folder is
            split by a fixed seed, one sixth held out, and has no "test".
        image_size: Side in pixels. Fashion-MNIST is 28; a folder is resized and centre-cropped to it.
        channels: 1 (grey) or 3 (RGB).
        download: Let torchvision fetch Fashion-MNIST.
        root: Of torchvision's files of Fashion-MNIST.

    Returns:
        Images as uint8 (N, channels, image_size, image_size), targets as int64 (N,), and names.
    """
    if split not in {"train", "held-out", "train+held-out", "test"}:
        raise ConfigError(f"split {split!r} must be train, held-out, train+held-out or test")
    if source == "fashion-mnist":
        data = fashion_mnist(split != "test", root, download)
        images, targets, names = data.data[:, None], data.targets, list(data.classes)
        if image_size != images.shape[-1]:
            raise ConfigError(f"Fashion-MNIST images are 28 x 28, image_size is {image_size}")
        images = images.expand(-1, channels, -1, -1)
        held_out = HELD_OUT
    else:
        if split == "test":
            raise ConfigError(f"{source} has no test split; use held-out")
        found, classes = open_image_folder(Path(source))
        folder, mode = FolderImages(found), "L" if channels == 1 else "RGB"
        images = torch.stack(
            [
                resize_and_crop(image, image_size, mode)
                for image, _ in tqdm((folder[i] for i in range(len(folder))), "reading images", len(folder))
            ]
        )
        targets, names = torch.tensor(folder.targets), list(classes)
        held_out = len(images) // 6
    if split in {"train", "held-out"}:
        index = split_indices(len(images), held_out, split)
        images, targets = images[index], targets[index]
    return images, targets, names


def check_splits(dataset: str) -> None:
    """Check that a folder of real images has the same classes to train on and to test on.

    Raises:
        ConfigError: It has not. A data set of another kind is not looked at.
    """
    if not is_own_folder(dataset) or not (Path(dataset).expanduser() / "train").is_dir():
        return
    splits = [split_folder(dataset, train) for train in (True, False)]
    train, test = ({path.name for path in split.iterdir() if path.is_dir()} for split in splits)
    if train != test:
        raise ConfigError(
            f"{splits[0]} and {splits[1]} have different classes: only one of them has "
            f"{sorted(train ^ test)[:5]}; both need a folder for each class"
        )


def is_own_folder(dataset: str) -> bool:
    """Return whether a data set is a folder of images, and not one that is known by name."""
    return dataset not in NAMED and Path(dataset).expanduser().is_dir()


def split_folder(dataset: str, train: bool) -> Path:
    """Return the folder of one split of a folder of real images.

    Raises:
        ConfigError: There is none.
    """
    parts = [Path(dataset).expanduser() / part for part in (("train",) if train else ("val", "test"))]
    found = next((part for part in parts if part.is_dir()), None)
    if found is None:
        raise ConfigError(
            f"dataset = {dataset!r} must be fashion-mnist, cifar10, cifar100, or a folder with "
            f"{parts[0].name}/, which has one folder per class"
        )
    return found


def folder_images(path: Path, subset: str) -> ImageSet:
    """Return an image folder; with `subset`, of ImageNet, its classes only, in their usual order.

    Raises:
        ConfigError: There is no such subset, or the folder lacks a class of it.
    """
    images, folders = open_image_folder(path)
    names = [without_number(name) for name in folders]
    is_wnid = all(re.fullmatch(r"n\d{8}", name) for name in names)
    if subset:
        wanted = packaged_subset("imagenet", subset)
        missing = sorted(set(wanted) - set(names))
        if missing:
            raise ConfigError(f"{path} has no folders {missing[:5]} of {subset}; folders are WordNet IDs")
        label_of = {names.index(name): label for label, name in enumerate(wanted)}
        images = relabel(images, {old: label_of.get(old) for old in range(len(names))})
        names = wanted
    return ImageSet(FolderImages(images), names, names if is_wnid else None)
