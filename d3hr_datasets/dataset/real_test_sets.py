"""The real test set beside a named data set: torchvision's own, with the labels of the distilled set.

In: the name of a data set, the classes that are kept, the folder of the real images. Out: a data set of
torchvision, of (PIL image, label).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import CIFAR10, CIFAR100, DatasetFolder, FashionMNIST, ImageNet, VisionDataset

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.dataset.options import chosen_classes
from d3hr_datasets.dataset.tiny_imagenet import TinyImageNetValidation
from d3hr_datasets.errors import ConfigError, RealTestSetError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.text import printable
from d3hr_datasets.numerics.torch_settings import neutral

# A folder, and torchvision's `download`, to a test set as it is; its names are in `_class_names`.
_DOWNLOADED: dict[str, Callable[..., VisionDataset[Any]]] = {
    "fashion-mnist": partial(FashionMNIST, train=False),
    "cifar10": partial(CIFAR10, train=False),
    "cifar100": partial(CIFAR100, train=False),
}
_BROUGHT: dict[str, Callable[[str], VisionDataset[Any]]] = {
    "imagenet": partial(ImageNet, split="val"),
    "tiny-imagenet": TinyImageNetValidation,
}
_HOW_TO_BRING = {
    "imagenet": "torchvision cannot download it: put ILSVRC2012_devkit_t12.tar.gz and "
    "ILSVRC2012_img_val.tar of image-net.org into the folder",
    "tiny-imagenet": "torchvision has no such data set: unpack tiny-imagenet-200.zip of cs231n.stanford.edu "
    "and give root=FOLDER, the folder that holds val/, with val_annotations.txt or a folder for each WordNet "
    "ID in it; other folders of classes are opened by torchvision.datasets.ImageFolder",
}


def real_test_set(
    name: str,
    root: str | Path = "data",
    transform: Callable[[Any], Any] | None = None,
    target_transform: Callable[[int], Any] | None = None,
    download: bool = False,
    *,
    classes: Sequence[str | int] | None = None,
    subset: str | None = None,
) -> VisionDataset[Any]:
    """Open the real test set of a named data set, with its labels. Nothing is generated for it.

    It is torchvision's own: `FashionMNIST`, `CIFAR10`, `CIFAR100` with `train=False`, `ImageNet` with
    `split="val"`. For Tiny ImageNet, which torchvision has not, the validation images are read from the
    folder that the official archive unpacks to. With `classes` or `subset` only images of these classes
    stay, and labels are 0..K-1 in their order, as in the distilled set. The attributes `classes` and
    `class_to_idx` are those of the distilled set, too.

    Args:
        name: Name of the data set, as `list_datasets` has it.
        root: Folder of the real images, as torchvision's data set takes it.
        transform: Applied to the PIL image.
        target_transform: Applied to the int label.
        download: Have torchvision download what is missing (Fashion-MNIST and CIFAR only).
        classes: Classes to keep, as for the distilled set.
        subset: Name of a usual subset of the classes to keep ("imagenette").

    Raises:
        ConfigError: The name, a class or the subset is unknown, or the set cannot be downloaded.
        RealTestSetError: The images are missing or unreadable, their classes or the order of these are not
            those of the distilled set, or a class has no image.

    Example:
        >>> test_set = real_test_set("fashion-mnist", "data", ToTensor(), download=True)
    """
    _check_known(name)
    class_list = ClassList.packaged(name)
    labels = class_list.labels(chosen_classes(name, classes, subset))
    return open_test_set(name, class_list, labels, root, transform, target_transform, download)


@neutral()
def open_test_set(
    name: str,
    class_list: ClassList,
    class_labels: Sequence[int],
    root: str | Path,
    transform: Callable[[Any], Any] | None,
    target_transform: Callable[[int], Any] | None,
    download: bool,
) -> VisionDataset[Any]:
    """Open the test set `name` and keep its images of `class_labels`; the rest as `real_test_set`.

    Args:
        name: A name that `real_test_set` knows.
        class_list: Every class of the data set, by class label.
        class_labels: The class labels that are kept, by new label.
        root: Folder of the real images.
        transform: Applied to the PIL image.
        target_transform: Applied to the int label.
        download: As in torchvision.
    """
    _check_known(name)
    if not isinstance(download, bool):
        raise ConfigError(f"download must be a bool, not {download!r}")
    if download and name in _BROUGHT:
        raise ConfigError(f"download=True: the test set of {name} is not downloaded: {_HOW_TO_BRING[name]}")
    folder = expand_user(root)
    options: dict[str, Any] = {"transform": transform, "target_transform": target_transform}
    try:
        if name in _DOWNLOADED:
            dataset = _DOWNLOADED[name](str(folder), download=download, **options)
        else:
            dataset = _BROUGHT[name](str(folder), **options)
    except Exception as error:  # whatever torchvision raises: it is not this library's
        mend = _HOW_TO_BRING.get(name, "give root=FOLDER, the folder it is in, or download=True")
        raise RealTestSetError(
            f"the test set of {name} cannot be opened in {printable(folder.absolute())}: {printable(error)}; "
            f"{mend}"
        ) from error
    _check_order(dataset, class_list, name)
    _keep(dataset, class_list, class_labels)
    return dataset


def _check_known(name: str) -> None:
    if name not in _DOWNLOADED and name not in _BROUGHT:
        raise ConfigError(
            f"no real test set of {name!r} is known; known: {sorted([*_DOWNLOADED, *_BROUGHT])}; open the "
            "real images by a data set of torchvision"
        )


def _class_names(dataset: Any) -> list[str]:
    """Return names of classes by label; WordNet IDs of ImageNet, where a class has several names."""
    names: list[str] = dataset.wnids if isinstance(dataset, ImageNet) else dataset.classes
    return names


def _check_order(dataset: VisionDataset[Any], class_list: ClassList, name: str) -> None:
    found = _class_names(dataset)
    if len(found) != len(class_list.names):
        raise RealTestSetError(
            f"the test set of {name} in {dataset.root} has {len(found)} classes, the distilled set "
            f"{len(class_list.names)}; bring the whole test set, and choose classes by classes=[...]"
        )
    for label, other in enumerate(found):
        if class_list.find(other) != label:
            raise RealTestSetError(
                f"label {label} of the test set of {name} in {dataset.root} is {other!r}, of the distilled "
                f"set {class_list.names[label]!r}: their orders differ, and accuracies would mean nothing; "
                "bring the official test set"
            )


def _keep(dataset: Any, class_list: ClassList, class_labels: Sequence[int]) -> None:
    """Leave the images of these classes in a data set, labelled by their place among these classes."""
    new = {class_label: label for label, class_label in enumerate(class_labels)}
    before = torch.as_tensor(dataset.targets).tolist()
    kept = [index for index, class_label in enumerate(before) if class_label in new]
    targets = [new[before[index]] for index in kept]
    names = [class_list.names[class_label] for class_label in class_labels]
    empty = [name for label, name in enumerate(names) if label not in set(targets)]
    if empty:
        raise RealTestSetError(
            f"the test set in {dataset.root} has no image of {len(empty)} classes: {empty[:5]}; bring it "
            "again"
        )
    if isinstance(dataset, DatasetFolder):
        files = [dataset.samples[index][0] for index in kept]
        dataset.samples = dataset.imgs = list(zip(files, targets, strict=True))  # type: ignore[attr-defined]
    else:
        dataset.data = dataset.data[kept]
    dataset.targets = torch.tensor(targets) if isinstance(dataset.targets, torch.Tensor) else targets
    dataset.classes = names
    if not isinstance(dataset, FashionMNIST):  # which makes it of `classes`
        dataset.class_to_idx = {name: label for label, name in enumerate(names)}
    if isinstance(dataset, ImageNet) and class_list.wnids is not None:
        dataset.wnids = [class_list.wnids[class_label] for class_label in class_labels]
        dataset.wnid_to_idx = {wnid: label for label, wnid in enumerate(dataset.wnids)}
