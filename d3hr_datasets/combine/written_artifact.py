"""An artifact made of others: sums and a description -> a new folder, whole or not there.

What was made of images otherwise (cards, pictures, previews, results) is not taken over: it is no longer
true.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import ADAPTER, EMBEDDINGS, METADATA, MOMENTS, STATISTICS, list_files
from d3hr_datasets.artifact.embeddings import write_embeddings
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.latent_sums import LatentSums
from d3hr_datasets.build.shrinkage import FEW_IMAGES, shrink_variances
from d3hr_datasets.build.shrinkage_choice import Shrinkage, check_shrinkage
from d3hr_datasets.config.budgets import Budget
from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.errors import ArtifactIntegrityError, CombineError, ConfigError, D3HRError
from d3hr_datasets.io.atomic import added_folder
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import file_sha256, is_file
from d3hr_datasets.numerics.torch_settings import neutral

Notify = Callable[[str], object]

# Fields of a description that stay those of the (first) artifact; all others are made anew, so that nothing
# is taken over which a later version derives from the images.
CARRIED = (
    "image_size",
    "image_mode",
    "padding",
    "latent_shape",
    "model",
    "inversion",
    "decode",
    "dtype",
    "embeddings",
    "adapter",
)
ADAPTED = ("budgets",)  # carried as far as it fits what is written
# Candidates are other images where statistics are others; and a precision was that of other images.
DROPPED = ("curation", "tolerance")
REFUSED = ("privacy", "learned")  # artifacts that have it are neither merged nor forgotten of
MADE = ("name", "classes", "counts", "source", "producer", "wnids", "num_modes", "prompts", "shrinkage")
REPLACED = {METADATA, STATISTICS, MOMENTS, EMBEDDINGS}


def check_output(output: str | Path, inputs: Sequence[Path]) -> Path:
    """Return the whole path of a folder to write, which is not there yet.

    Raises:
        ConfigError: It holds something, cannot be made, or lies in an artifact that is read.
    """
    place = _resolved(output)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(
            f"output={str(output)!r:.300} is there already; what is made never takes the place of what it is "
            "made of: give a new folder"
        )
    for folder in inputs:
        if place.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"output={str(output)!r:.300} lies in the artifact {folder}; give a folder outside"
            )
    return place


def _resolved(output: str | Path) -> Path:
    """Return the path of a folder, links followed.

    Raises:
        ConfigError: It can be none, or what would hold it cannot be written.
    """
    try:
        place = expand_user(output).resolve()
        place.exists()  # its name may be too long
        holder = next(folder for folder in place.parents if folder.exists())
        if not holder.is_dir() or not os.access(holder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{holder} cannot be written")
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"output={str(output)!r:.300} can be no folder: {reason}; give one in a folder that you may write"
        ) from error
    return place


def shrinkage_like(
    parts: Sequence[Artifact], asked: Shrinkage | None, notify: Notify, noted: Shrinkage | None = None
) -> Shrinkage:
    """Return by which rule to draw variances, and say which it is and why.

    Args:
        parts: Artifacts; what their shares tell of the rule is taken where nothing else is known.
        asked: What the user asks for, which goes before all else.
        notify: Called with a sentence.
        noted: The rule of the build, where its membership notes it.
    """
    rule: Shrinkage
    if asked is not None:
        rule, why = check_shrinkage(asked), "as asked for"
    elif noted is not None:
        rule, why = noted, "as in the build, by the membership"
    else:
        found = {one for part in parts if (one := _rule_of(part.info)) is not None}
        rule = found.pop() if len(found) == 1 else "auto"
        why = "as far as can be told of the shares that are stored; --shrinkage says another"
    notify(f"variances are drawn towards shared ones by the rule {rule!r}: {why}")
    return rule


def _rule_of(info: ArtifactInfo) -> Shrinkage | None:
    """Return by which rule an artifact's variances seem to have been drawn; None where nothing tells."""
    if info.shrinkage:
        same = len(set(info.shrinkage)) == 1 and info.shrinkage[0] < 1
        return info.shrinkage[0] if same else "auto"
    # "auto" would have drawn the variances of such classes.
    return "none" if len(info.classes) > 1 and min(info.counts) < FEW_IMAGES else None


def describe(first: Artifact, **made: Any) -> ArtifactInfo:
    """Return a description: `CARRIED` of an artifact, and all others of `MADE` that are given.

    Raises:
        ConfigError: A value is not accepted.
    """
    return ArtifactInfo(**{name: getattr(first.info, name) for name in CARRIED}, **made)


@neutral()
def write_artifact(
    output: Path,
    first: Artifact,
    info: ArtifactInfo,
    sums: LatentSums,
    *,
    exact: bool,
    shrinkage: Shrinkage,
    embeddings: PromptEmbeddings | None = None,
    finish: Callable[[Artifact], object] = lambda made: None,
) -> Artifact:
    """Write statistics of sums, and the model and adapter of an artifact, into a new folder.

    Args:
        output: The folder, missing or empty.
        first: Whose model and adapter are copied, each file compared with its checksum.
        info: What is written; counts, modes and shares of shrinkage are those of the sums.
        sums: Of the images.
        exact: Store the sums, too: they are those of the images, and no estimate.
        shrinkage: How far variances are drawn.
        embeddings: Of the prompts, where they are stored.
        finish: Called with the artifact before it gets its name.

    Raises:
        StatisticsError: A class has fewer than two images.
        ArtifactIntegrityError: A file of the first artifact differs from its checksum.
        CombineError: The folder cannot be written.
    """
    if info.model.path is not None:
        first.model_folder()  # which refuses what is no model
    first.adapter_folder()
    gaussians, modes = sums.statistics()
    gaussians, shares = shrink_variances(gaussians, shrinkage)
    counts = tuple(sums.count.sum(dim=1).tolist())
    info = dataclasses.replace(info, counts=counts, num_modes=sums.num_modes, shrinkage=shares)
    info = dataclasses.replace(info, budgets=fitting_budgets(first.info, sums.num_modes))
    sources = {name: first.check(name) for name in kept_files(first)}
    try:
        with added_folder(output) as place:
            for name, source in sources.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place / name)
                if file_sha256(place / name) != first.sha256[name]:
                    raise ArtifactIntegrityError(
                        f"{first.folder / name} has changed while it was copied; wait until nobody writes "
                        "there, and run it again"
                    )
            if embeddings is not None:
                write_embeddings(place / EMBEDDINGS, embeddings)
            finish(Artifact.save(place, info, gaussians, modes, sums if exact else None))
    except D3HRError:  # some are OSErrors, but say what is wrong themselves
        raise
    except OSError as error:
        raise CombineError(
            f"{str(output)!r:.300} cannot be written: {error.strerror or error}. Free some space, or give a "
            "folder that can be written"
        ) from error
    return Artifact.load(output)


def fitting_budgets(info: ArtifactInfo, num_modes: int) -> tuple[Budget, ...]:
    """Return the rules of an artifact that hold without its order of curated images, for so many modes."""
    return tuple(
        rule
        for rule in info.budgets
        if not rule.is_curated
        and not (num_modes == 1 and rule.sampling is not None and rule.sampling.method == "modes")
    )


def say_dropped(parts: Sequence[Artifact], made: Artifact, notify: Notify) -> None:
    """Say what of some artifacts is not of what was made: orders of images, precision; rules of the first."""
    for part in parts:
        if part.info.curation is not None:
            notify(
                f"the order of curated images of {part.folder} is left out, since its candidates would be "
                "other images now; `d3hr curate` makes an order of the new artifact"
            )
        if part.info.tolerance is not None:
            notify(
                f"the precision that {part.folder} was built to ({100 * part.info.tolerance.share:g} % of "
                "the spread of a class) is not said of the new artifact, which is of other images"
            )
    first = parts[0]
    gone = [str(rule.max_ipc) for rule in first.info.budgets if rule not in made.info.budgets]
    if gone:
        notify(
            f"the rules of {first.folder} for at most {', '.join(gone)} images per class are left out, since "
            "they ask for curated images or modes that the new artifact has not; `d3hr budgets` gives it "
            "others"
        )


def kept_files(artifact: Artifact) -> list[str]:
    """Return the names of the files of an artifact that are copied: those of its model and its adapter."""
    folders = [f"{ADAPTER}/"] if artifact.info.adapter else []
    if artifact.info.model.path is not None:
        folders.append(f"{artifact.info.model.path}/")
    found = [name for name in artifact.sha256 if name.startswith(tuple(folders))] if folders else []
    return [name for name in found if not name.endswith(".md") or is_file(artifact.folder / name)]


def files_left_out(artifacts: Sequence[Artifact]) -> list[str]:
    """Return which files of artifacts are not taken over.

    Raises:
        ArtifactFormatError: There is what can be no part of an artifact.
    """
    names: set[str] = set()
    for artifact in artifacts:
        kept = {*kept_files(artifact), *REPLACED}
        found = {path.relative_to(artifact.folder).as_posix() for path in list_files(artifact.folder)}
        names |= {name for name in found - kept if not name.startswith(".") and name in artifact.sha256}
    return sorted(names)


def say_left_out(names: Sequence[str], notify: Notify) -> None:
    """Say which files are not taken over."""
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        notify(
            f"left out, since it says of the images what is no longer so: {shown}; `d3hr card` makes a card"
        )
