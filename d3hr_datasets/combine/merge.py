"""Merging: artifacts of several parties, of one model and one way of inverting -> one artifact of all images.

Where the parts store the sums behind their statistics (`BuildSettings.moments`), class Gaussians are those of
one build of all images, to the last bit, whatever the parts and their order were. Where one stores statistics
only, they are as exact as these were stored. Modes are joined from those of the parts, or kept side by side.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import STATISTICS
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.info_texts import MAX_TEXT
from d3hr_datasets.artifact.membership import LINEAGE
from d3hr_datasets.build.shrinkage_choice import Shrinkage
from d3hr_datasets.combine.agreement import check_agreement, merged_of, shared_sources
from d3hr_datasets.combine.class_union import UnitedClasses, unite_classes
from d3hr_datasets.combine.joined_modes import add_up
from d3hr_datasets.combine.part_sums import BITS, open_part, sums_of_part
from d3hr_datasets.combine.written_artifact import (
    Notify,
    check_output,
    describe,
    files_left_out,
    say_dropped,
    say_left_out,
    shrinkage_like,
    write_artifact,
)
from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.diffusion.kinds.kind import Inputs
from d3hr_datasets.errors import CombineError
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.version import __version__

logger = logging.getLogger(__name__)

SAID = (
    "name",
    "split",
    "license",
    "fingerprint",
    LINEAGE,
    "tolerance",
    "imported",
)  # of the source of each part
# Share of the largest number of an embedding by which it may differ between machines, by the precision that
# prompts were read in: a few of its last digits.
SAME = {"float16": 2**-8, "bfloat16": 2**-5}
MAX_COUNTS = 50_000  # numbers that are said of parts; of more, each part says how many images it has
OF_FIRST = ("model_kind", "model_license", "torch_dtype")  # of that of the first one


@neutral()
def merge_artifacts(
    parts: Sequence[str | Path | Artifact],
    output: str | Path,
    *,
    name: str | None = None,
    num_modes: int | None = None,
    keep_modes: bool = False,
    shrinkage: Shrinkage | None = None,
    notify: Notify = logger.warning,
) -> Artifact:
    """Make one artifact of several, of all their images.

    Classes that have one name are one class; those of the first part keep their labels, and new ones follow
    in the order of the parts. Model, adapter, decoding, and the type in which statistics are stored are
    those of the first part.

    Source: Chan, Golub and LeVeque (1983), for parts that store statistics only: count, mean and variance of
    the whole follow from those of its parts.

    Args:
        parts: Two or more artifacts: folders, "ORG/NAME@REVISION" on the Hub, or artifacts that are open.
        output: A new folder.
        name: Name of the data set; by default that of the folder.
        num_modes: Modes of each class, found by k-means among those of the parts, each with the weight of its
            images; by default as many as each part has.
        keep_modes: Keep the modes of all parts side by side instead.
        shrinkage: How far variances are drawn towards those that all classes share, as in a build. By default
            as the shares of the parts tell, or "auto".
        notify: Called with each sentence that the user should know.

    Raises:
        CombineError: The parts differ in what must be the same, one is there twice, or modes do not fit.
        ConfigError: An option has a value that is not accepted, or `output` is there already.
        ArtifactNotFoundError: A part is not there; likewise `ArtifactFormatError`, where it cannot be read.
        StatisticsError: The statistics of a part are none, or sums get too large.

    Example:
        >>> merged = merge_artifacts(["hospital-a", "hospital-b"], "both")
        >>> merged.info.source["parts"]
    """
    opened = [open_part(part) for part in parts]
    if len(opened) < 2:
        raise CombineError(f"{len(opened)} artifact is given; accepted: two or more to merge")
    place = check_output(output, [part.folder for part in opened])
    drawn = shrinkage_like(opened, shrinkage, notify)
    check_agreement(opened)
    classes = unite_classes(opened)
    sums, exact = zip(*map(sums_of_part, opened), strict=True)
    left_out = files_left_out(opened)
    total = add_up([*zip(sums, classes.labels, strict=True)], classes.names, num_modes, keep_modes)
    info = _described(opened, classes, place.resolve().name.lower() if name is None else name)
    embeddings = _united_embeddings(opened, classes) if info.embeddings else None
    artifact = write_artifact(
        place, opened[0], info, total, exact=all(exact), shrinkage=drawn, embeddings=embeddings
    )
    say_dropped(opened, artifact, notify)
    _say(opened, exact, notify)
    say_left_out(left_out, notify)
    return artifact


def _described(parts: Sequence[Artifact], classes: UnitedClasses, name: str) -> ArtifactInfo:
    """Return the description of the whole, of which images and modes have not been counted."""
    return describe(
        parts[0],
        name=name,
        classes=classes.names,
        wnids=classes.wnids,
        prompts=classes.prompts,
        source=merged_source(parts, classes),
        producer=f"d3hr-datasets {__version__}, d3hr merge",
    )


def merged_source(parts: Sequence[Artifact], classes: UnitedClasses) -> dict[str, Any]:
    """Return what a merged artifact says of its images: its parts, and what they have in common.

    Its `fingerprint` is the sum of theirs, which is that of one build of all images, where labels stay.
    """
    first = parts[0].info.source
    names = dict.fromkeys(str(part.info.source.get("name") or part.info.name) for part in parts)
    source: dict[str, Any] = {"name": ", ".join(names)[:MAX_TEXT]}
    given = [part.info.source.get("fingerprint") for part in parts]
    if all(_is_fingerprint(one) for one in given):
        source["fingerprint"] = f"{sum(int(str(one), 16) for one in given) % 2**256:064x}"
    licenses = dict.fromkeys(str(part.info.source.get("license") or "not given") for part in parts)
    if [*licenses] != ["not given"]:
        source["license"] = " and ".join(licenses)[:MAX_TEXT]
    source |= {key: first[key] for key in OF_FIRST if key in first}
    imported = [str(one) for part in parts if (one := part.info.source.get("imported"))]
    if imported:
        source["imported"] = " and ".join(dict.fromkeys(imported))[:MAX_TEXT]
    left_out = [one for part in parts if isinstance(one := part.info.source.get("unreadable"), list)]
    if left_out:
        source["unreadable"] = [image for images in left_out for image in images]
    entries = [one for part in parts for one in merged_of(part) or [{"counts": []}]]
    number = sum(isinstance(one.get("counts"), list) for one in entries) * len(classes.names)
    source["parts"] = [
        entry
        for part, labels in zip(parts, classes.labels, strict=True)
        for entry in _entries(part, labels, len(classes.names) if number <= MAX_COUNTS else None)
    ]
    return source


def _entries(part: Artifact, labels: Sequence[int], num_classes: int | None) -> list[dict[str, Any]]:
    """Return what is said of a part: name, source and counts by new labels; of a merged one, its parts.

    Without a number of classes, counts are numbers of images. What is no count is left out.
    """

    def counted(counts: Any) -> dict[str, Any]:
        if not isinstance(counts, list | tuple):
            return {"counts": counts} if type(counts) is int and counts >= 0 else {}
        if len(counts) != len(labels) or not all(type(count) is int and count >= 0 for count in counts):
            return {}
        if num_classes is None:
            return {"counts": sum(counts)}
        found = [0] * num_classes
        for label, count in zip(labels, counts, strict=True):
            found[label] = count
        return {"counts": found}

    merged = merged_of(part)
    if merged:
        return [
            {key: value for key, value in one.items() if key != "counts"} | counted(one["counts"])
            if "counts" in one
            else one
            for one in merged
        ]
    source = part.info.source
    said: dict[str, Any] = {key: source[key] for key in SAID if key in source}
    if "fingerprint" not in said:
        said["statistics"] = part.sha256[STATISTICS]
    if part.info.tolerance is not None:
        said["tolerance"] = part.info.tolerance.share
    return [{"artifact": part.info.name, **said, **counted(part.info.counts)}]


def _united_embeddings(parts: Sequence[Artifact], classes: UnitedClasses) -> PromptEmbeddings:
    """Return the embeddings of the prompts of all classes, each of the first part that has it.

    Raises:
        CombineError: They are other ones in another part, which another text encoder has made.
    """
    rows: dict[int, Inputs] = {}
    read = [part.embeddings() for part in parts]
    for part, found, labels in zip(parts, read, classes.labels, strict=True):
        pairs = [
            (rows.setdefault(new, found.embeddings[label]), found.embeddings[label], classes.names[new])
            for label, new in enumerate(labels)
        ]
        if read[0].negative is not None and found.negative is not None:
            pairs.append((read[0].negative, found.negative, "no class"))
        shapes = {key: tuple(values.shape[1:]) for key, values in found.embeddings[0].items()}
        expected = {key: tuple(values.shape[1:]) for key, values in read[0].embeddings[0].items()}
        if shapes != expected:
            raise CombineError(
                f"the shape of embeddings is {expected} in {parts[0].folder} and {shapes} in {part.folder}; "
                "build one of them again as the other"
            )
        for before, here, name in pairs:
            if not _same_embeddings(before, here, SAME.get(str(part.info.source.get("torch_dtype")), 2**-9)):
                raise CombineError(
                    f"the embeddings of {name} are others in {part.folder} than in the parts before it: they "
                    "are of another text encoder, and so are the latents; build one of them again as the "
                    "other"
                )
    return PromptEmbeddings(len(classes.names), rows, read[0].negative)


def _same_embeddings(one: Inputs, other: Inputs, share: float) -> bool:
    """Say whether two embeddings of a prompt are the same, but for a share of the largest number."""
    return one.keys() == other.keys() and all(
        values.shape == other[key].shape
        and float((values.float() - other[key].float()).abs().max())
        <= share * float(values.float().abs().max())
        for key, values in one.items()
    )


def _say(parts: Sequence[Artifact], exact: Sequence[bool], notify: Notify) -> None:
    """Say what is not exact, what is taken from the first part alone, and what is left out."""
    first = parts[0]
    rounded = [part for part, is_exact in zip(parts, exact, strict=True) if not is_exact]
    if rounded:
        names = ", ".join(str(part.folder) for part in rounded)
        bits = min(BITS[part.info.dtype] for part in rounded)
        is_scaled = any(part.info.dtype == "int8" for part in rounded)
        of_largest = " (of the largest number of their channel)" if is_scaled else ""
        notify(
            f"no sums are stored in {names}: their means and variances count with the {bits} bits that they "
            f"were rounded to{of_largest}, so what is merged is exact to the last of these, and stores no "
            "sums; build with --moments to merge exactly"
        )
    if any(part.info.num_modes > 1 for part in parts):
        notify(
            "modes are joined from those of the parts, or kept side by side: one build of all images would "
            "find others; class Gaussians do not depend on it"
        )
    for sentence in shared_sources(parts):
        notify(sentence)
    for what in ("decode", "dtype", "budgets"):
        if any(getattr(part.info, what) != getattr(first.info, what) for part in parts):
            notify(f"the parts differ in {what}, of which that of the first one is taken: {first.folder}")
    for part in parts:
        if part.info.source.get("imported"):
            notify(f"{part.folder} was imported, and how its images were inverted is not checked here")


def _is_fingerprint(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")
