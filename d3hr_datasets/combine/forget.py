"""Forgetting: an artifact without what some of its images added to it, as if it had been built without them.

Statistics are sums, so what an image added is found by inverting it again, and taken away. Modes keep their
images: which mode an image is in is not sought again. What the diffusion model remembers of the images, if
it was trained on them, no artifact can take away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA, MOMENTS
from d3hr_datasets.artifact.latent_sums import LatentSums
from d3hr_datasets.artifact.membership import (
    Member,
    Membership,
    default_key,
    open_key,
    read_membership,
)
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.build.build_settings import ClassOptions
from d3hr_datasets.build.class_matching import match_to_model
from d3hr_datasets.build.reading_ahead import halve_on_out_of_memory
from d3hr_datasets.build.shrinkage_choice import Shrinkage, check_shrinkage
from d3hr_datasets.combine.counted_images import (
    CountedImage,
    check_belongs,
    check_left,
    find_counted,
    say_counted,
)
from d3hr_datasets.combine.inverted_again import inverted_sums, taken_away
from d3hr_datasets.combine.new_membership import add_membership, is_there, make_parent
from d3hr_datasets.combine.part_sums import checked_sums, open_part
from d3hr_datasets.combine.source_left import source_left
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
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.defaults import NUM_READERS
from d3hr_datasets.errors import CombineError, ConfigError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.opening import SourceOptions, open_source
from d3hr_datasets.sources.records import Images
from d3hr_datasets.sources.user_datasets import ImageStream, TorchvisionLike
from d3hr_datasets.version import __version__

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
CANNOT = (
    "the diffusion model may remember the images, if it or its adapter was trained on them, and nothing here "
    "changes that",
    "whoever has the artifact as it was before can tell what was taken away: withdraw it, and the images and "
    "sets made of it",
    "finished chunks of a build, OUTPUT.chunks or --work, hold digest and class of each image that was "
    "counted, and sums of a few: remove them, if that has not been done",
    "the membership of before lists the digests of these images, and the new one lists them as forgotten, so "
    "whoever has its key can tell that an image was there: remove the first, and keep the key to yourself",
)


@dataclass(frozen=True)
class ForgetOptions:
    """How images are read and inverted again.

    Args:
        source: How the source is opened.
        class_map: Class of the source -> class of the artifact, as `ClassOptions.class_map`.
        same_order: The source's labels are the artifact's; otherwise names are matched.
        device: Where to run, as in PyTorch.
        torch_dtype: Precision; by default that of the build, and no other is accepted.
        batch_size: Images at a time; halved as often as memory runs out.
        num_readers: Threads that read images.
        shrinkage: How far variances are drawn; by default as in the build.
        cpu_offload: Have the parts of the model take turns on the device.

    Raises:
        ConfigError: A size is out of range, or `torch_dtype` is none.
    """

    source: SourceOptions = dataclasses.field(default_factory=SourceOptions)
    class_map: Mapping[str, object] | str | Path | None = None
    same_order: bool = False
    device: torch.device | str | None = None
    torch_dtype: torch.dtype | None = None
    batch_size: int = BATCH_SIZE
    num_readers: int = NUM_READERS
    shrinkage: Shrinkage | None = None
    cpu_offload: bool = False

    def __post_init__(self) -> None:
        check_int("batch_size", self.batch_size, 1)
        check_int("num_readers", self.num_readers, 1)
        dtype = self.torch_dtype
        if dtype is not None and (not isinstance(dtype, torch.dtype) or not dtype.is_floating_point):
            raise ConfigError(f"torch_dtype must be one such as torch.float32, not {self.torch_dtype!r:.80}")


@neutral()
def forget_images(
    artifact: str | Path | Artifact,
    images: str | Path | TorchvisionLike | ImageStream,
    output: str | Path,
    *,
    membership: str | Path,
    key: str | Path | None = None,
    new_membership: str | Path | None = None,
    options: ForgetOptions | None = None,
    notify: Notify = logger.warning,
) -> Artifact:
    """Make an artifact of an artifact, without what some images added to it.

    It is what a build without them is, to round-off, but for the fingerprint of its images, which is keyed.
    Copies of an image, of the same pixels and class, go with it.

    Args:
        artifact: One that was built with `moments=True`: a folder, or one that is open.
        images: As the source of a build, of one class or more of the artifact's.
        output: A new folder.
        membership: The file that was written when the artifact was built, or images were forgotten of it
            before.
        key: Its key; by default "membership.key" beside it.
        new_membership: File for the membership of the new artifact, by default OUTPUT.membership; in it, the
            images are known as forgotten.
        options: How images are read and inverted.
        notify: Called with each sentence that the user should know, among them what this cannot do.

    Raises:
        CombineError: An image was never counted, is of another class, or was forgotten before; a class or
            mode would have fewer than two images; the precision is another, or a file cannot be written.
        ConfigError: The artifact stores no sums, the membership or its key cannot be read, or an option has a
            value that is not accepted.
        UnreadableImageError: An image cannot be read.
        ModelNotFoundError: The model is missing; likewise `ModelFormatError`, where it cannot be used.
    """
    options = ForgetOptions() if options is None else options
    opened = open_part(artifact)
    place = check_output(output, [opened.folder])
    path, key_path, new_path = _paths(opened, place, membership, key, new_membership)
    noted, secret, sums = read_membership(path), open_key(key_path), checked_sums(opened)
    check_belongs(noted, opened, sums, secret)
    dtype = _precision(noted, options.torch_dtype)
    given = _open_images(images, opened, options)
    counted = find_counted(given, opened.info, noted, secret, options.batch_size, options.num_readers)
    members = [one for image in counted for one in image.members]
    check_left(members, sums, opened.info)
    _say(counted, opened, notify)
    drawn = shrinkage_like([opened], options.shrinkage, notify, check_shrinkage(noted.shrinkage))
    make_parent(new_path)
    left_out = files_left_out([opened])
    model = load_model(opened, options.device, dtype, cpu_offload=options.cpu_offload)
    invert = halve_on_out_of_memory(inverted_sums, options.batch_size, model)
    left = taken_away(sums, invert(counted, opened, model, options.num_readers), dtype)
    found = dataclasses.replace(without(noted, members), shrinkage=drawn)
    made = _write(opened, place, left, counted, drawn, found, new_path, secret)
    say_dropped([opened], made, notify)
    say_left_out(left_out, notify)
    notify(f"the membership of the new artifact is {new_path}, its key is {key_path}")
    return made


def _say(counted: Sequence[CountedImage], artifact: Artifact, notify: Notify) -> None:
    """Say what goes, and what does not."""
    say_counted(counted, artifact.info, notify)
    for sentence in CANNOT:
        notify(sentence)


def _precision(noted: Membership, asked: torch.dtype | None) -> torch.dtype:
    """Return the precision of the build.

    Raises:
        CombineError: Another is asked for.
    """
    built: torch.dtype = getattr(torch, noted.torch_dtype)
    if asked not in (None, built):
        raise CombineError(
            f"torch_dtype={str(asked).removeprefix('torch.')!r} is not the precision of the build, "
            f"{noted.torch_dtype!r}: other latents than were counted would be taken away; leave it out"
        )
    return built


def _write(
    artifact: Artifact,
    output: Path,
    sums: LatentSums,
    counted: Sequence[CountedImage],
    shrinkage: Shrinkage,
    noted: Membership,
    new_path: Path,
    secret: bytes,
) -> Artifact:
    """Write the artifact of what is left, and its membership: both, or neither."""
    is_noted = False

    def write_noted(moments: str) -> None:
        nonlocal is_noted
        add_membership(new_path, dataclasses.replace(noted, moments=moments))
        is_noted = True

    info = describe(
        artifact,
        **{name: getattr(artifact.info, name) for name in ("name", "classes", "wnids", "prompts")},
        source=source_left(artifact, counted, secret),
        producer=f"d3hr-datasets {__version__}, d3hr forget",
    )
    embeddings = artifact.embeddings() if info.embeddings else None
    try:
        return write_artifact(
            output,
            artifact,
            info,
            sums,
            exact=True,
            shrinkage=shrinkage,
            embeddings=embeddings,
            finish=lambda made: write_noted(made.sha256[MOMENTS]),
        )
    except BaseException:
        if is_noted and not (output / METADATA).exists():  # the membership of no artifact
            with contextlib.suppress(OSError):
                new_path.unlink()
        raise


def without(noted: Membership, members: Sequence[Member]) -> Membership:
    """Return a membership without some members, which are known as forgotten."""
    gone = set(members)
    kept = tuple(one for one in noted.members if one not in gone)
    still = {one.digest for one in kept}  # counted as another class
    forgotten = {*noted.forgotten, *(one.digest for one in gone)} - still
    return dataclasses.replace(noted, members=kept, forgotten=tuple(sorted(forgotten)))


def _paths(
    artifact: Artifact,
    output: Path,
    membership: str | Path,
    key: str | Path | None,
    new_membership: str | Path | None,
) -> tuple[Path, Path, Path]:
    """Return the files of the membership, its key, and the new membership.

    Raises:
        ConfigError: The artifact stores no sums, or the new membership would lie in an artifact or replace a
            file.
    """
    if MOMENTS not in artifact.sha256:
        raise ConfigError(
            f"{artifact.folder} stores no sums ({MOMENTS}), of which images are taken away; build it with "
            "--moments and --membership FILE"
        )
    path = expand_user(membership).absolute()
    new = output.with_name(f"{output.name}.membership")
    if new_membership is not None:
        new = expand_user(new_membership).absolute()
    if any(new.resolve().is_relative_to(folder.resolve()) for folder in (output, artifact.folder)):
        raise ConfigError(
            f"new_membership={str(new)!r} lies in an artifact, which may be published; put it outside"
        )
    if new.exists():
        raise is_there(new)
    return path, default_key(path) if key is None else expand_user(key).absolute(), new


def _open_images(
    images: str | Path | TorchvisionLike | ImageStream, artifact: Artifact, options: ForgetOptions
) -> Images:
    """Return images with the artifact's class labels."""
    opened = open_source(images, options.source)
    info, classes = artifact.info, ClassOptions(None, options.class_map, options.same_order)
    is_named = isinstance(images, str | Path)
    return match_to_model(opened, info.class_list, len(info.classes), classes, is_named)[1]
