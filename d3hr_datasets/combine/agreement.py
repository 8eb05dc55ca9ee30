"""What artifacts must have in common to be merged: descriptions and checksums -> nothing, or what differs.

Statistics add up only where latents mean the same: of one model, inverted in one way, of images of one form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import ADAPTER, STATISTICS
from d3hr_datasets.artifact.membership import LINEAGE
from d3hr_datasets.errors import CombineError

NAMES = ("fingerprint", LINEAGE, "statistics")  # what in `source` names images; the last where no other does

# Of an inversion, what may differ: the seed of posterior samples. It decides single latents, and no others.
MAY_DIFFER = {"seed"}


def check_agreement(parts: Sequence[Artifact]) -> None:
    """Check that the latents behind some artifacts are of one kind, and no part is there twice.

    Raises:
        CombineError: They differ in something; the message names it, and both values. Or images of one part
            are, by their fingerprint, also those of another.
    """
    first = parts[0]
    expected = _facts(first)
    for other in parts[1:]:
        found = _facts(other)
        for name in dict.fromkeys([*expected, *found]):
            before, here = expected.get(name), found.get(name)
            if before != here:
                raise CombineError(
                    f"{name} is {before!r:.300} in {first.folder} and {here!r:.300} in {other.folder}; "
                    "artifacts merge where it is the same: build one of them again as the other"
                )
    _check_distinct(parts)


def fingerprints(part: Artifact) -> set[str]:
    """Return what names the images behind an artifact: its fingerprint, and those of its parts.

    And what stays when some of the images are forgotten. Statistics without any are named by themselves.
    """
    sources = [part.info.source, *merged_of(part)]
    found = {text for one in sources for name in NAMES if isinstance(text := one.get(name), str)}
    return found if part.info.source.get("fingerprint") else found | {part.sha256[STATISTICS]}


def merged_of(part: Artifact) -> list[dict[str, Any]]:
    """Return what a merged artifact says of its parts; nothing where it is none."""
    found = part.info.source.get("parts")
    is_list = isinstance(found, list) and bool(found) and all(isinstance(one, dict) for one in found)
    return found if is_list else []  # type: ignore[return-value]


def shared_sources(parts: Sequence[Artifact]) -> list[str]:
    """Return a sentence for each pair of parts that may have images in common, which no fingerprint tells.

    That of an artifact whose build stopped early is of those images alone that it chose.
    """
    found = []
    for number, part in enumerate(parts):
        for other in parts[:number]:
            if (_stopped(part) or _stopped(other)) and _names(part) & _names(other):
                found.append(
                    f"{other.folder} and {part.folder} are of sources of one name, and not all images of "
                    "them were used (--tolerance): those that both may have used count twice; if they are "
                    "of the same images, keep one of them"
                )
    return found


def _sources(part: Artifact) -> list[dict[str, Any]]:
    return merged_of(part) or [part.info.source]


def _stopped(part: Artifact) -> bool:
    """Return whether a build of the artifact, or of a part of it, stopped early."""
    return part.info.tolerance is not None or any(one.get("tolerance") for one in _sources(part))


def _names(part: Artifact) -> set[tuple[str, str]]:
    return {(str(one.get("name")), str(one.get("split"))) for one in _sources(part)}


def _check_distinct(parts: Sequence[Artifact]) -> None:
    for number, part in enumerate(parts):
        for other in parts[:number]:
            common = fingerprints(part) & fingerprints(other)
            if common:
                raise CombineError(
                    f"{other.folder} and {part.folder} are of the same images, or of what is left of them "
                    f"(fingerprint or lineage {sorted(common)[0]}), which would be counted twice; leave out "
                    "one of them"
                )


def _facts(part: Artifact) -> dict[str, Any]:
    """Return by name what must be the same."""
    info = part.info
    model = f"inside, SHA-256 {_digest(part, f'{info.model.path}/')}"
    if info.model.path is None:
        model = f"{info.model.repo_id}@{info.model.revision}"
    inversion = {
        f"inversion.{name}": value
        for name, value in info.inversion.to_dict().items()
        if name not in MAY_DIFFER
    }
    facts: dict[str, Any] = {
        "the model": model,
        "the adapter": f"inside, SHA-256 {_digest(part, f'{ADAPTER}/')}" if info.adapter else "none",
        "latent_shape": info.latent_shape,
        "image_size": info.image_size,
        "image_mode": info.image_mode,
        "padding": info.padding,
        **inversion,
        "the precision of the build": info.source.get("torch_dtype", "float32"),
        "what classes are to the model": "labels" if info.prompts is None else "prompts",
        "embeddings": info.embeddings,
    }
    if info.prompts is not None:
        return {**facts, "the negative prompt": info.prompts.negative}
    return {**facts, "classes": info.classes, "wnids": info.wnids}  # their order is the model's


def _digest(part: Artifact, folder: str) -> str:
    """Return a digest of the files of a folder of an artifact, its texts for people left out."""
    names = sorted(name for name in part.sha256 if name.startswith(folder) and not name.endswith(".md"))
    text = "\n".join(f"{name.removeprefix(folder)} {part.sha256[name]}" for name in names)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
