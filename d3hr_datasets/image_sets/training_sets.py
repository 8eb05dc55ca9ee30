"""What a student sees: distilled images, and the baselines a fair table sets them against.

In: the name of a data set and of a source. Out: an `ImageSet`. The same seed gives the same images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset
from torchvision import datasets
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.classes.class_list import packaged_subset
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.settings import GroupSamplingConfig
from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.dataset.artifact_registry import REGISTRY, registered_artifact
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.dataset.generation_settings import default_settings
from d3hr_datasets.errors import ConfigError, ImagesNotFoundError
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
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.students.selection import herding, k_center, random_per_class, select_per_class
from d3hr_datasets.students.views import Images, TensorImages

IN_MEMORY = 20_000  # generated images, at most
REAL = ("whole", "random_real", "herding", "k_center", "reconstructed")
# Source of generated images -> how groups are sampled; "independent" draws one random group and takes it.
GROUPS = {
    "default": None,
    "modes": GroupSamplingConfig("modes"),
    "moment_matched": GroupSamplingConfig("moment_matched"),
    "search": GroupSamplingConfig("search"),
    "curated": GroupSamplingConfig("curated"),
    "independent": GroupSamplingConfig("search", num_candidates=1),
    "vae_gaussians": GroupSamplingConfig("search", num_candidates=1),
}
# Those of which there is another group for another seed: of an order there is one.
RESAMPLED = [name for name, how in GROUPS.items() if how is None or how.method != "curated"]
SOURCES = (*REAL, "raw_diffusion", *GROUPS)
Features = Callable[[Images], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Which images a student sees.

    Args:
        dataset: "fashion-mnist", "cifar10", "cifar100" (torchvision's, below `data_root`), or a folder with
            `train` and `val` or `test`, each with one folder per class.
        source: One of `SOURCES`. "whole" is the real training set, "random_real", "herding" and "k_center"
            (the last two in the teacher's features) are subsets of it, "reconstructed" is "random_real"
            through the VAE; "raw_diffusion" samples the model from noise; "vae_gaussians" draws from class
            Gaussians in VAE space (timestep -1); "independent" draws from those at the artifact's timestep;
            "search", "moment_matched" and "modes" are group sampling, "curated" is the order that the
            artifact stores, and "default" is what the artifact does by default.
        ipc: Images per class; 0 for "whole".
        seed: Of the images and of the training; curated images are the same ones for every seed.
        artifact: Folder of the artifact, or "ORG/NAME" on the Hub; empty for that of the data set.
        subset: A usual subset of ImageNet: "imagenette", "imagewoof", "imagenet100".
        timestep: To decode from; the artifact's default otherwise.
        guidance_scale: To decode with; the artifact's default otherwise.
        num_candidates: Of "search".
        mode_spread: Of "modes"; that of `GroupSamplingConfig` otherwise.
        weights: Give each image the weight in the loss that its share of the real images asks for
            (`D3HRDataset.weights`). For sources of `GROUPS`: no others have weights.
        resample_every: Passes over the images after which another group is taken; 0 for never. For sources of
            `RESAMPLED`.
        select: Choose settings: leave the held-out training images out, and test on them.
        data_root: Folder of torchvision's files.
        download: Let torchvision download them.
    """

    dataset: str
    source: str
    ipc: int = 0
    seed: int = 0
    artifact: str = ""
    subset: str = ""
    timestep: int | float | None = None
    guidance_scale: float | None = None
    num_candidates: int = 2000
    mode_spread: float | None = None
    weights: bool = False
    resample_every: int = 0
    select: bool = False
    data_root: str = "data"
    download: bool = False


def check_groups(settings: TrainingSet) -> None:
    """Check that images can be drawn anew and weighed, where they are to be.

    Raises:
        ConfigError: `resample_every` is no number of passes, or the source has no other group or no weights.
    """
    every = check_int("resample_every", settings.resample_every, 0)
    if every and settings.source not in RESAMPLED:
        raise ConfigError(
            f"resample_every = {every} takes another group of the artifact every few passes, of which source "
            f"{settings.source!r} has none; accepted sources: {RESAMPLED}, or resample_every: 0"
        )
    if settings.weights and settings.source not in GROUPS:
        raise ConfigError(
            "weights=True weighs images by the real ones that they stand for, and those of source "
            f"{settings.source!r} have no weights; leave it out, or take one of the sources {list(GROUPS)}"
        )


def open_artifact(settings: TrainingSet, root: str | Path) -> D3HRDataset:
    """Return the distilled data set of the settings; its images are not made yet."""
    sampling = GROUPS.get(settings.source)
    if settings.source == "search":
        sampling = GroupSamplingConfig("search", num_candidates=settings.num_candidates)
    if settings.mode_spread is not None:
        if settings.source != "modes":
            raise ConfigError(
                f"mode_spread is of source 'modes', not of {settings.source!r}; set both or none"
            )
        sampling = GroupSamplingConfig("modes", mode_spread=settings.mode_spread)
    classes = packaged_subset("imagenet", settings.subset) if settings.subset else None
    artifact = settings.artifact or _artifact_of(settings.dataset)
    plain = D3HRDataset(artifact, root, max(settings.ipc, 1), classes=classes)
    timestep = CLEAN if settings.source == "vae_gaussians" else settings.timestep
    changes: dict[str, Any] = {"timestep": timestep, "guidance_scale": settings.guidance_scale}
    method = None if sampling is None else sampling.method
    first, default = default_settings(
        plain.artifact.info, plain.ipc, method=method, redrawn=settings.resample_every > 0
    )
    decode = dataclasses.replace(default, **{k: v for k, v in changes.items() if v is not None})
    # Curated images are the same ones for every student, also where a rule asks for them.
    seed = 0 if (method or first.method) == "curated" else settings.seed
    return D3HRDataset(
        plain.artifact,
        root,
        plain.ipc,
        seed,
        classes=classes,
        sampling=sampling,
        decode=decode,
        resample="epoch" if settings.resample_every else "never",
        in_memory=settings.resample_every > 0 and len(plain) <= IN_MEMORY,
    )


def _artifact_of(dataset: str) -> str | Path:
    """Return the artifact of a data set by its name, or by that of the folder of its real images."""
    name = Path(dataset).name
    if name not in REGISTRY:
        raise ConfigError(
            f"no artifact belongs to the data set {dataset!r}; give one with artifact=FOLDER, or one of the "
            f"names {sorted(REGISTRY)}"
        )
    return registered_artifact(name)


@neutral()
def training_set(
    settings: TrainingSet, root: str | Path, features: Features | None = None, passes: int = 0
) -> ImageSet:
    """Return the images of a student.

    Args:
        settings: Which.
        root: Cache of generated images.
        features: Images to features (N, D), for "herding" and "k_center".
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
    if settings.source in {"herding", "k_center"}:
        if features is None:
            raise ConfigError(f"source {settings.source!r} chooses in a teacher's features; give a teacher")
        method = herding if settings.source == "herding" else k_center
        index = select_per_class(method, features(real.images), targets, settings.ipc)
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
