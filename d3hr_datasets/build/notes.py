"""What a user should know of what a build chose: a description -> sentences."""

from __future__ import annotations

from collections import Counter

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.moments_file import moments_bytes
from d3hr_datasets.artifact.tolerance import least_images
from d3hr_datasets.build.build_settings import BuildSettings
from d3hr_datasets.build.early_stop import expected_images, first_round
from d3hr_datasets.build.kept_sums import KeptSums
from d3hr_datasets.build.shrinkage import FEW_IMAGES
from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.sources.records import Images

SHOWN = 3  # prompts


def model_notes(info: ArtifactInfo, diffusion: LatentDiffusion) -> list[str]:
    """Return what is to be known of prompts, and of what is stored of them."""
    if info.prompts is None:
        return []
    shown = ", ".join(map(repr, info.prompts.per_class[:SHOWN]))
    more = ", ..." if len(info.prompts.per_class) > SHOWN else ""
    found = [f"the prompts are {shown}{more}; --class-list or --prompts gives classes other words"]
    embeddings = diffusion.conditioning
    if info.embeddings and isinstance(embeddings, PromptEmbeddings):
        rows = [*embeddings.embeddings.values(), embeddings.negative or {}]
        size = sum(2 * values.numel() for row in rows for values in row.values())
        found.append(
            f"the embeddings of the prompts are stored, {size / 1e6:,.1f} MB, so that no text encoder is "
            "needed to "
            "make images"
        )
    return found


def moments_note(info: ArtifactInfo, sums: KeptSums | None) -> str | None:
    """Return how large the sums are that are kept, and where membership is noted."""
    if sums is None:
        return None
    text = f"the sums behind the statistics are stored, too: {moments_bytes(info) / 1e6:,.1f} MB"
    if sums.membership is None:
        return text
    path, key = sums.paths
    return (
        f"{text}; {path} notes which images are behind them, {key} is its key: they are yours alone, keep "
        "both and publish neither"
    )


def shrinkage_note(images: Images, info: ArtifactInfo, settings: BuildSettings) -> str | None:
    """Return which variances are drawn towards shared ones where nobody said so, if any are."""
    if settings.shrinkage_used != "auto" or info.privacy is not None:
        return None
    off = "--shrinkage none leaves variances as they are"
    if images.labels is None:
        return (
            f"where a class turns out to have fewer than {FEW_IMAGES} images, its variances are drawn "
            "towards those "
            f"that all classes share; {off}"
        )
    counts = [0] * len(info.classes)
    for label in images.labels:
        counts[label] += 1
    have = "have"
    if settings.tolerance is not None:
        used = first_round(settings.tolerance, info)
        # How many images modes take, only the images tell.
        have = "use" if info.num_modes == 1 else "may use"
        have = have if used < FEW_IMAGES else "have"
        counts = [min(count, used) for count in counts]
    few = sum(count < FEW_IMAGES for count in counts)
    if not few or len(counts) == 1:
        return None
    return (
        f"{few} of {len(counts)} classes {have} fewer than {FEW_IMAGES} images: their variances are drawn "
        f"towards those that all classes share, by the share that errs least; {off}"
    )


def tolerance_note(images: Images, info: ArtifactInfo, tolerance: float | None) -> str | None:
    """Return how many images a build to a stated precision takes, as far as labels tell."""
    if tolerance is None or images.labels is None:
        return None
    least, most = expected_images(images, info, tolerance)
    needed = least_images(tolerance)
    small = sum(size < needed for size in Counter(images.labels).values())
    number = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return (
        f"{number} of {len(images.labels):,} images are inverted: the mean of a class takes {needed:,} to be "
        f"known to {100 * tolerance:g} % of its spread"
        + (
            ""
            if info.num_modes == 1
            else f", and those of its {info.num_modes} modes up to {info.num_modes} times as many (--modes 1 "
            "stores none)"
        )
        + (f"; all images of {small:,} of {len(info.classes):,} classes are fewer than that" if small else "")
    )
