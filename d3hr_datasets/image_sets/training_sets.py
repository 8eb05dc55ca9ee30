"""What a student sees: distilled images, and the baselines a fair table sets them against.

In: the name of a data set and of a source. Out: an `ImageSet`. The same seed gives the same images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import Subset
from torchvision import datasets
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.errors import ConfigError, ImagesNotFoundError
from d3hr_datasets.image_sets.distilled_sets import IN_MEMORY, open_artifact
from d3hr_datasets.image_sets.generated_images import (
    FreshImages,
    dataset_tensors,
    raw_samples,
    reconstruct,
)
from d3hr_datasets.image_sets.image_set import ImageSet
from d3hr_datasets.image_sets.real_images import (
    folder_images,
    load_images,
    provide_fashion_mnist,
    split_folder,
)
from d3hr_datasets.image_sets.training_set_settings import REAL, SOURCES, TrainingSet, check_groups
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.students.selection import BY_FEATURES, random_per_class, select_per_class
from d3hr_datasets.students.views import Images, TensorImages

Features = Callable[[Images], torch.Tensor]


@neutral()
def training_set(
    settings: TrainingSet, root: str | Path, features: Features | None = None, passes: int = 0
) -> ImageSet:
    """Return the images of a student.

    Args:
        settings: Which.
        root: Cache of generated images.
        features: Images to features (N, D), for the sources of `BY_FEATURES`.
        passes: Over the images, if known: with `resample_every`, what is after them is not generated.

    Raises:
        ConfigError: The source is unknown, or needs `ipc` or `features`, or cannot be resampled or weighed.
    """
    source = settings.source
    if source not in SOURCES:
        raise ConfigError(f"source = {source!r} must be one of {list(SOURCES)}, or images:SET")
    if (settings.ipc == 0) != (source == "whole"):
        raise ConfigError(f"source {source!r} and ipc {settings.ipc} do not go together; 'whole' has ipc 0")
    check_groups(settings)
    if source in REAL:
        real = real_images(settings, train=True)
        return real if source == "whole" else _subset(settings, real, root, features)
    dataset = open_artifact(settings, root)
    if source == "raw_diffusion":
        model = load_model(dataset.artifact, dataset.device)
        images, labels = raw_samples(
            dataset, model, settings.ipc, settings.seed, dataset.decode.guidance_scale
        )
        return ImageSet(TensorImages(images, labels, dataset.classes), dataset.classes, dataset.wnids or None)
    images_of: Images = dataset
    weights = dataset.weights if settings.weights else None  # the same in every group
    if settings.resample_every:
        images_of = FreshImages(dataset, settings.resample_every, passes)
        return ImageSet(images_of, dataset.classes, dataset.wnids or None, weights)
    dataset.materialize(progress=False)
    if len(dataset) <= IN_MEMORY:
        images_of = TensorImages(*dataset_tensors(dataset), dataset.classes)
    return ImageSet(images_of, dataset.classes, dataset.wnids or None, weights)


@neutral()
def images_to_test_on(settings: TrainingSet, training: ImageSet) -> ImageSet:
    """Return the real test images (with `select`: held-out training images) in the training set's labels.

    Raises:
        ConfigError: The classes, or their order, are others.
    """
    real = real_images(settings, train=False)
    if real.classes != training.classes and (real.wnids is None or real.wnids != training.wnids):
        raise ConfigError(
            f"the test set has the classes {real.classes[:5]} ... ({len(real.classes)}), the training set "
            f"{training.classes[:5]} ... ({len(training.classes)}); they must be the same in the same order"
        )
    return real


@neutral()
def real_images(settings: TrainingSet, train: bool) -> ImageSet:
    """Return the real images to train on, or to test on."""
    name = settings.dataset
    if name == "fashion-mnist":
        split = (
            ("train" if train else "held-out") if settings.select else "train+held-out" if train else "test"
        )
        images, targets, classes = load_images(name, split, 28, 1, settings.download, settings.data_root)
        return ImageSet(TensorImages(images, targets, classes), classes)
    if settings.select:
        raise ConfigError(f"{name} has no held-out part; set select: false")
    if name in {"cifar10", "cifar100"}:
        data = _cifar(settings, train)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2)
        return ImageSet(TensorImages(images, torch.tensor(data.targets), data.classes), data.classes)
    return folder_images(split_folder(name, train), settings.subset)


def check_real_images(settings: TrainingSet) -> None:
    """Check that the real images of a data set are on this machine, without reading them.

    Raises:
        ImagesNotFoundError: They are not; the message says how to get them.
        ConfigError: There is no such data set.
    """
    if settings.dataset == "fashion-mnist":
        if not settings.download:
            provide_fashion_mnist(settings.data_root)
    elif settings.dataset not in {"cifar10", "cifar100"}:
        split_folder(settings.dataset, train=False)
    elif not settings.download:
        _cifar(settings, train=False)


def _cifar(settings: TrainingSet, train: bool) -> datasets.CIFAR10:
    kind = datasets.CIFAR10 if settings.dataset == "cifar10" else datasets.CIFAR100
    try:
        return kind(settings.data_root, train, download=settings.download)
    except RuntimeError as error:
        raise ImagesNotFoundError(
            f"{kind.__name__} is not in {settings.data_root!r}: {error}. Set data_root to the folder of "
            "torchvision's files, or download=true"
        ) from error


def _subset(settings: TrainingSet, real: ImageSet, root: str | Path, features: Features | None) -> ImageSet:
    targets = torch.tensor(real.images.targets)  # type: ignore[attr-defined]
    if settings.source in BY_FEATURES:
        if features is None:
            raise ConfigError(f"source {settings.source!r} chooses in a teacher's features; give a teacher")
        index = select_per_class(BY_FEATURES[settings.source], features(real.images), targets, settings.ipc)
    else:
        index = random_per_class(targets, settings.ipc, settings.seed)
    if settings.source != "reconstructed":
        return dataclasses.replace(real, images=Subset(real.images, index.tolist()))  # type: ignore[arg-type]
    dataset = open_artifact(settings, root)
    images = torch.stack([_pixels(real.images[position][0]) for position in index.tolist()])
    images = reconstruct(load_model(dataset.artifact, dataset.device), images)
    return dataclasses.replace(real, images=TensorImages(images, targets[index], real.classes))


def _pixels(image: object) -> torch.Tensor:
    return image if isinstance(image, torch.Tensor) else pil_to_tensor(image)
