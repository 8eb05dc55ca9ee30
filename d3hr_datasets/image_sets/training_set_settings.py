"""Which images a student sees, as settings say it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.settings import GroupSamplingConfig, GroupSamplingMethod
from d3hr_datasets.errors import ConfigError

REAL = ("whole", "random_real", "herding", "k_center", "medoids", "reconstructed")
# Source of generated images -> how groups are sampled, a method's name where as the artifact has it for that
# method; "independent" draws one random group and takes it.
GROUPS: dict[str, GroupSamplingConfig | GroupSamplingMethod | None] = {
    "default": None,
    "modes": "modes",
    "moment_matched": "moment_matched",
    "search": "search",
    "curated": "curated",
    "independent": GroupSamplingConfig("search", num_candidates=1),
    "vae_gaussians": GroupSamplingConfig("search", num_candidates=1),
}
# Those of which there is another group for another seed: of an order there is one.
RESAMPLED = [name for name, how in GROUPS.items() if how != "curated"]
SOURCES = (*REAL, "raw_diffusion", *GROUPS)


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Which images a student sees.

    Args:
        dataset: "fashion-mnist", "cifar10", "cifar100" (torchvision's, below `data_root`), or a folder with
            `train` and `val` or `test`, each with one folder per class.
        source: One of `SOURCES`. "whole" is the real training set, "random_real", "herding", "k_center" and
            "medoids" (the last three in the teacher's features) are subsets of it, "reconstructed" is
            "random_real" through the VAE; "raw_diffusion" samples the model from noise; "vae_gaussians"
            draws from class Gaussians in VAE space (timestep -1); "independent" from those at the artifact's
            timestep; "search", "moment_matched" and "modes" are group sampling, "curated" is the order that
            the artifact stores, and "default" is what the artifact does by default.
        ipc: Images per class; 0 for "whole".
        seed: Of the images and of the training; curated images are the same ones for every seed.
        artifact: Folder of the artifact, or "ORG/NAME" on the Hub; empty for that of the data set.
        subset: A usual subset of ImageNet: "imagenette", "imagewoof", "imagenet100".
        timestep: To decode from; the artifact's default otherwise.
        guidance_scale: To decode with; the artifact's default otherwise.
        decode: Further fields of `DecodeConfig` to change: `num_steps`, `solver`, `spacing`, ...
        num_candidates: Of "search".
        mode_spread: Of "modes"; that of `GroupSamplingConfig` otherwise.
        weights: Give each image the weight in the loss that its share of the real images asks for
            (`D3HRDataset.weights`). For sources of `GROUPS`: no others have weights.
        resample_every: Passes over the images after which another group is taken; 0 for never. For sources of
            `RESAMPLED`.
        keep_epochs: Groups that may lie on disk with `resample_every`, as of `D3HRDataset`: 1 makes each in
            the process of the training, when it is needed, and none in the background.
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
    decode: dict[str, Any] = field(default_factory=dict)
    num_candidates: int = 2000
    mode_spread: float | None = None
    weights: bool = False
    resample_every: int = 0
    keep_epochs: int = 2
    select: bool = False
    data_root: str = "data"
    download: bool = False


def check_groups(settings: TrainingSet) -> None:
    """Check that images can be drawn anew and weighed, where they are to be.

    Raises:
        ConfigError: `resample_every` is no number of passes, or the source has no other group or no weights.
    """
    every = check_int("resample_every", settings.resample_every, 0)
    check_int("keep_epochs", settings.keep_epochs, 1)
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
