"""The sums behind the statistics of an artifact: those that it stores, or what its statistics say they were.

In: an artifact. Out: `LatentSums`, and whether they are exact.
"""

from __future__ import annotations

from pathlib import Path

import torch

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import MOMENTS
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.latent_sums import MAX_COUNT, MAX_ENERGY, LatentSums, in_units, least_squares
from d3hr_datasets.artifact.units import SQUARE_UNIT, UNIT
from d3hr_datasets.build.shrinkage import draw_variances
from d3hr_datasets.errors import CombineError, StatisticsError
from d3hr_datasets.io.untrusted_files import is_file
from d3hr_datasets.numerics.sums import ordered_sum
from d3hr_datasets.numerics.torch_settings import neutral

# Bits of a stored number, its leading one included; of int8, of the largest number of its channel.
BITS = {"float32": 24, "float16": 11, "bfloat16": 8, "int8": 7}


def open_part(part: str | Path | Artifact) -> Artifact:
    """Return an artifact with its sums, where it has any.

    Raises:
        CombineError: Privacy was promised to its images, or its means are learned.
    """
    if isinstance(part, Artifact):
        opened = part
        is_here = MOMENTS not in part.sha256 or is_file(part.folder / MOMENTS)
        if part.repo_id is not None and not is_here:
            opened = Artifact.from_pretrained(str(part.repo_id), revision=part.revision, with_moments=True)
    else:
        opened = Artifact.from_pretrained(part, with_moments=True)
    if opened.info.privacy is not None:
        raise CombineError(
            f"{opened.folder} is a private artifact, of noisy statistics: it is not merged with others, and "
            "no image is forgotten of it; build one anew of the images that are wanted, which spends its own "
            "budget"
        )
    learned = opened.info.learned
    if learned is not None:
        raise CombineError(
            f"{opened.folder} has learned means of modes, which all images moved together: it is not merged "
            "with others, and no image is forgotten of it. Merge or forget in the artifact that it was "
            f"learned from, of fingerprint {learned.original}, and learn again: d3hr learn"
        )
    return opened


def sums_of_part(artifact: Artifact) -> tuple[LatentSums, bool]:
    """Return the sums of an artifact, and whether they are those of its images exactly.

    Raises:
        CombineError: It stores no sums and its variances were drawn towards shared ones, or what it stores
            contradicts its statistics.
        ArtifactFormatError: Its files are not what they should be; likewise `StatisticsError`.
    """
    if MOMENTS in artifact.sha256:
        return checked_sums(artifact), True
    if artifact.info.shrinkage:
        raise CombineError(
            f"{artifact.folder} stores no sums ({MOMENTS}), and its variances were drawn towards those that "
            "all classes share, which cannot be undone; build it with --moments, or with --shrinkage none"
        )
    return approximate_sums(artifact), False


@neutral()
def checked_sums(artifact: Artifact) -> LatentSums:
    """Return the sums that an artifact stores, after computing its statistics from them anew.

    Raises:
        CombineError: Its statistics are others.
    """
    info, sums = artifact.info, artifact.sums()
    gaussians, modes = sums.statistics()
    if info.shrinkage:
        gaussians = {t: draw_variances(gaussian, info.shrinkage) for t, gaussian in gaussians.items()}
    for time in info.inversion.timesteps:
        stored, found = artifact.gaussians(time), gaussians[time]
        pairs = {"mean": (stored.mean, found.mean), "variance": (stored.variance, found.variance)}
        if info.num_modes > 1:
            stored_modes, found_modes = artifact.modes(time), modes[time]
            pairs["modes.mean"] = (stored_modes.mean, found_modes.mean)
            pairs["modes.variance"] = (stored_modes.variance, found_modes.variance)
            if not torch.equal(stored_modes.count, sums.count):
                raise _contradiction(artifact, "modes.count", time)
        for name, (before, now) in pairs.items():
            if not _agree(before.double(), now.double(), name, info):
                raise _contradiction(artifact, name, time)
    return sums


@neutral()
def approximate_sums(artifact: Artifact) -> LatentSums:
    """Return the sums that the statistics of an artifact say, as far as they were stored.

    Raises:
        StatisticsError: They are too large for any latents.
    """
    info = artifact.info
    sums, squares = {}, {}
    for time in info.inversion.timesteps:
        if info.num_modes > 1:
            modes = artifact.modes(time)
            count, mean, variance = modes.count, modes.mean, modes.variance
        else:
            gaussian = artifact.gaussians(time)
            count, mean, variance = gaussian.count[:, None], gaussian.mean[:, None], gaussian.variance
        number = count.double().view(*count.shape, 1, 1, 1)
        freedom = (count.sum(dim=1) - info.num_modes).clamp(min=0).double().view(-1, 1, 1, 1)
        energy = variance.double() * freedom + ordered_sum(number * mean.double().square(), 1)
        if bool((count > MAX_COUNT).any()) or not float(energy.max()) <= MAX_ENERGY:
            raise StatisticsError(
                f"the statistics of {artifact.folder} at {time} are too large to be added up: count x "
                f"(variance + mean^2) must be at most {MAX_ENERGY:,.0f}; see whether images and model "
                "belong together"
            )
        sums[time] = in_units(number * mean.double(), UNIT)
        squares[time] = in_units(energy, SQUARE_UNIT).maximum(least_squares(sums[time], count).long())
    return LatentSums(count, sums, squares)


def _agree(stored: torch.Tensor, found: torch.Tensor, name: str, info: ArtifactInfo) -> bool:
    """Say whether numbers are those that were stored, but for two steps of what stores them."""
    if info.dtype == "int8":
        if name.endswith("variance"):  # stored as standard deviations
            stored, found = stored.sqrt(), found.sqrt()
        size = found.abs().amax(dim=(-2, -1), keepdim=True)
    else:
        size = found.abs()
    return bool(((stored - found).abs() <= 2 * size * 2.0 ** -BITS[info.dtype] + 2.0**-23).all())


def _contradiction(artifact: Artifact, name: str, time: float) -> CombineError:
    return CombineError(
        f"the sums of {artifact.folder} ({MOMENTS}) are not those of its statistics: t{time}.{name} would be "
        "another; it was changed after it was built. Take the artifact as it was built, or build it again"
    )
