"""Private builds: what a build may say where privacy is promised, and the artifact that it writes.

In: settings of a budget, and exact sums of clipped latents. Out: an artifact of which counts, means and
variances have noise, and nothing else comes from the images.
"""

from __future__ import annotations

import dataclasses
import glob
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import ADAPTER, EMBEDDINGS
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.latent_sums import LatentSums
from d3hr_datasets.artifact.privacy import OF_IMAGES, Privacy, batch_condition
from d3hr_datasets.build.kept_sums import KeptSums
from d3hr_datasets.build.shrinkage_choice import Shrinkage
from d3hr_datasets.config.defaults import BUILD_BATCH_SIZE
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.atomic import check_replaceable, replaced_folder
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.privacy.release import add_noise, check_promise, estimate
from d3hr_datasets.privacy.settings import PrivacySettings
from d3hr_datasets.sources.records import Images

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.noise_schedule import NoiseSchedule

PUBLIC = {"model", ADAPTER, EMBEDDINGS}  # what the folder of a private artifact may hold before it is built


def with_privacy(
    info: ArtifactInfo, settings: PrivacySettings | None, num_modes: int | None, schedule: NoiseSchedule
) -> ArtifactInfo:
    """Return the description of an artifact with what is promised, if anything is.

    Raises:
        ConfigError: What is built goes without promises only.
        MissingExtraError: dp-accounting is not installed.
    """
    if settings is None:
        return info
    level = schedule.level(info.inversion.timesteps[0])
    spread = level.signal**2 + level.noise**2
    privacy = settings.mechanism(math.prod(info.latent_shape), spread)
    privacy.check_fits(num_modes or 1, info.inversion, info.curation)
    return dataclasses.replace(info, privacy=privacy)


def check_private(
    info: ArtifactInfo, output: Path, shrinkage: Shrinkage, sums: KeptSums | None, tolerance: float | None
) -> None:
    """Check that a build keeps what it promises, where it promises privacy.

    Raises:
        ConfigError: The noise is too little, exact sums are to be kept, a share of shrinkage or a tolerance
            is given, or `output` holds what would become part of the artifact, or is the working folder.
        MissingExtraError: dp-accounting is not installed.
    """
    if info.privacy is None:
        return
    check_promise(info.privacy, math.prod(info.latent_shape))
    if sums is not None:
        raise ConfigError(
            "moments=True does not go with privacy: they are the exact sums, and a membership says which "
            "images are behind them; leave them out"
        )
    if shrinkage not in ("auto", "none"):
        raise ConfigError(
            f"shrinkage={shrinkage!r} does not go with privacy, where the noise decides it; give 'auto' or "
            "'none'"
        )
    if tolerance is not None:
        raise ConfigError(
            f"tolerance={tolerance!r} does not go with privacy: when a class stops depends on its images; "
            "leave it out, and give the build as many images as you want it to use"
        )
    check_replaceable(output)
    output = output.resolve()
    check_no_release(output, [output, *output.parent.glob(f".{glob.escape(output.name)}.*.tmp*")])


def check_no_release(output: Path, places: Sequence[Path]) -> None:
    """Check that nothing lies in some folders that is a release, or was to become one.

    Args:
        output: Folder of the artifact.
        places: It, and folders that killed processes have left beside it.

    Raises:
        ConfigError: Something does.
    """
    found = sorted(path for place in places if place.is_dir() for path in place.iterdir())
    # Files that are being written are hidden, and whole before they get their names.
    hidden = [path for path in found if path.name.startswith(".") and not path.name.endswith(".tmp")]
    others = [path for path in found if path.name not in PUBLIC and path not in hidden]
    if others:
        names = ", ".join(map(str, others[:5]))
        raise ConfigError(
            f"{output} holds, or was to hold, {names}, which may say of images what no budget covers, and a "
            "private artifact takes the place of none: another build of the same images spends the budget "
            "again; give a new --output"
        )


def bounds_of(privacy: Privacy) -> tuple[float, float, float]:
    """Return what decides clipped latents: chunks are named by it, and not by the noise."""
    return privacy.clip_norm, privacy.clip_squares, privacy.spread


def batch_size_of(info: ArtifactInfo, batch_size: int | None) -> int:
    """Return how many images are in the model at a time: with privacy one, unless another number is given.

    In a larger batch the last digits of a latent may change with the other images, and with half precision
    more than these; and which images are together changes with every image before them.
    """
    if batch_size is not None:
        return batch_size
    return BUILD_BATCH_SIZE if info.privacy is None else 1


@neutral()
def save_private(
    output: Path,
    info: ArtifactInfo,
    sums: LatentSums,
    shrinkage: Shrinkage,
    batch_size: int,
    progress: bool = False,
) -> None:
    """Add noise to exact sums, and write the artifact of what is left.

    It appears at once. What a process leaves that is killed meanwhile lies beside it, and `check_private`
    takes it for what it is: a release.

    Args:
        output: Folder of the artifact; the model in it stays.
        info: What to write.
        sums: Of clipped latents.
        shrinkage: "auto" or "none".
        batch_size: Images in the model at a time, which is noted beside the promise.
        progress: Show how far the noise is.

    Raises:
        ConfigError: `info` promises nothing, or more than its noise keeps; or another build has written into
            the folder meanwhile.
    """
    if info.privacy is None:
        raise ConfigError("info.privacy is missing; give PrivacySettings(...).mechanism(...)")
    check_no_release(output, [output])  # by another build that ran meanwhile
    noised = add_noise(sums, info.privacy, progress=progress)
    gaussians, shares = estimate(noised, info.privacy, shrinkage == "auto")
    source = {key: value for key, value in info.source.items() if key not in OF_IMAGES}
    source["name"] = info.name  # that of the folder of images may say what they are
    counts = tuple(gaussians.count.tolist())
    privacy = dataclasses.replace(info.privacy, batch_size=batch_size)
    described = dataclasses.replace(info, counts=counts, source=source, shrinkage=shares, privacy=privacy)
    with replaced_folder(output) as place:
        Artifact.save(place, described, {info.inversion.timesteps[0]: gaussians})
        check_no_release(output, [output])


def batch_note(info: ArtifactInfo, batch_size: int) -> str | None:
    """Return what a promise hangs on where several images are in the model at a time."""
    if info.privacy is None or batch_size == 1:
        return None
    return (
        f"the promise holds for this model{batch_condition(batch_size)}; --batch-size 1 needs no such proof"
    )


def private_notes(info: ArtifactInfo, images: Images, work: Path) -> list[str]:
    """Return what is to be known before a private build runs."""
    privacy = info.privacy
    if privacy is None:
        return []
    trained = "the model and its adapter" if info.adapter else "the model"
    notes = [
        f"this build spends epsilon {privacy.epsilon:g} and delta {privacy.delta:g} for each image, once; "
        "every further build that sees some of these images, also with the same settings, spends its own on "
        "top, and so do settings that are chosen by looking at what comes out",
        f"the promise is for images that {trained} were not trained on, and nothing here checks that",
        f"exact sums lie in {work}: keep the folder to yourself, or remove it when the artifact is finished",
    ]
    number = None if images.labels is None else len(images.labels)
    if number and privacy.delta >= 1 / number:
        notes.append(
            f"delta {privacy.delta:g} is one in the number of images or more, which promises next to "
            f"nothing; give less than {1 / number:.1g}, by far"
        )
    return notes
