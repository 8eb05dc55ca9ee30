"""Images that are given to be forgotten -> the rows of a membership that count them.

An image is known by its pixels, as the model is given them, and by its class. All copies of it go together:
a copy is not told from its original.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import MOMENTS
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.latent_sums import LatentSums
from d3hr_datasets.artifact.membership import Member, Membership, key_id, member_digest
from d3hr_datasets.build.reading_ahead import ReadAhead, image_digest
from d3hr_datasets.errors import CombineError
from d3hr_datasets.sources.records import ImageRecord, Images

SHOWN = 5


@dataclass(frozen=True)
class CountedImage:
    """An image that was counted.

    Args:
        record: How it is read.
        members: The rows of the membership that count it: one, or one for each mode that its copies are in.
        pixels: Its part of the source's fingerprint, for each copy.
        others: Labels of other classes in which the same pixels were counted, too.
    """

    record: ImageRecord
    members: tuple[Member, ...]
    pixels: int
    others: tuple[int, ...] = ()


def check_belongs(found: Membership, artifact: Artifact, sums: LatentSums, key: bytes) -> None:
    """Check that a membership and a key are those of an artifact.

    Raises:
        CombineError: One is of another.
    """
    if key_id(key) != found.key_id:
        raise CombineError(
            f"the key has the ID {key_id(key)}, and the membership was written with the key {found.key_id}; "
            "give that key"
        )
    counted = [[0] * sums.num_modes for _ in artifact.info.classes]
    is_of_artifact = artifact.sha256[MOMENTS] == found.moments
    for one in found.members if is_of_artifact else ():
        if one.label >= len(counted) or one.mode >= sums.num_modes:
            raise CombineError(
                f"the membership counts an image in class {one.label} and mode {one.mode}, and "
                f"{artifact.folder} has {len(counted)} classes of {sums.num_modes} modes; the file is "
                "damaged: give a copy of it, as it was written"
            )
        counted[one.label][one.mode] += one.copies
    if is_of_artifact and counted != sums.count.tolist():
        raise CombineError(
            f"the membership counts {sum(map(sum, counted))} images in other numbers by class and mode than "
            f"{artifact.folder}, which it was written for; the file is damaged: give a copy of it, as it was "
            "written"
        )
    if not is_of_artifact:
        raise CombineError(
            f"the membership is of an artifact whose {MOMENTS} has the SHA-256 {found.moments}, and that of "
            f"{artifact.folder} has {artifact.sha256[MOMENTS]}; give the file that was written when this "
            "artifact was. Of a merged artifact, images are forgotten in the part that has them, which is "
            "merged again"
        )


def find_counted(
    images: Images, info: ArtifactInfo, found: Membership, key: bytes, batch_size: int, num_readers: int
) -> list[CountedImage]:
    """Return the images, each once, with the rows that count them.

    Raises:
        CombineError: There are none, or one was never counted, is of another class, or has been forgotten.
        UnreadableImageError: One cannot be read.
        ConfigError: One has no class label of the artifact.
    """
    rows: dict[bytes, list[Member]] = {}
    for one in found.members:
        rows.setdefault(one.digest, []).append(one)
    records = [record for shard in range(images.num_shards) for record in images.records(shard, 0)]
    if not records:
        raise CombineError("there are no images to forget; give a source of at least one")
    counted: dict[tuple[bytes, int], CountedImage] = {}
    refused: list[str] = []
    for batch in ReadAhead(records, batch_size, info, num_readers).batches():
        for record, future in batch:
            image, label = future.result()
            digest = member_digest(key, image)
            members = tuple(one for one in rows.get(digest, ()) if one.label == label)
            others = [one.label for one in rows.get(digest, ()) if one.label != label]
            if members:
                place = (digest, label)
                seen = CountedImage(record, members, image_digest(image, label), tuple(sorted(set(others))))
                counted.setdefault(place, seen)
            else:
                refused.append(_why_not(record, label, others, digest in found.forgotten, info))
    if refused:
        more = f", and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        raise CombineError(
            f"{len(refused)} of {len(records)} images cannot be forgotten: "
            f"{'; '.join(refused[:SHOWN])}{more}. "
            "Nothing was changed; leave them out, or give the images as they were when the artifact was "
            "built, by the same kind of source: those of `datasets:` turn images by their EXIF data, folders "
            "do not"
        )
    return list(counted.values())


def say_counted(counted: Sequence[CountedImage], info: ArtifactInfo, notify: Callable[[str], object]) -> None:
    """Say how many images are taken out, and which of them stay counted in another class."""
    copies = sum(one.copies for image in counted for one in image.members)
    notify(
        f"{len(counted)} different images were read, which were counted {copies} times, and are taken out; "
        "if you gave more, see that each is a file of a known type in the folder of its class"
    )
    given = {(one.digest, one.label) for image in counted for one in image.members}
    left = [
        f"{image.record.where} in {info.classes[label]!r}"
        for image in counted
        for label in image.others
        if (image.members[0].digest, label) not in given
    ]
    if left:
        more = f", and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        notify(
            f"also counted in another class, and still there: {', '.join(left[:SHOWN])}{more}; give them in "
            "that class, too, if they are to be forgotten"
        )


def check_left(members: Sequence[Member], sums: LatentSums, info: ArtifactInfo) -> None:
    """Check that classes and modes keep images when some are taken out.

    Raises:
        CombineError: A class would have fewer than two, or no more than modes; or a mode that loses some
            would have fewer than two: its mean would be an image, or nothing, and all classes have one number
            of modes.
    """
    left = sums.count.tolist()
    for one in members:
        left[one.label][one.mode] -= one.copies
    touched = {(one.label, one.mode) for one in members}
    for label, (name, of_class) in enumerate(zip(info.classes, left, strict=True)):
        least = max(2, info.num_modes + 1) if info.num_modes > 1 else 2
        if sum(of_class) < least:
            raise CombineError(
                f"class {name!r} would be left with {sum(of_class)} images; accepted: at least {least}, for "
                "a variance; keep some of its images, or build again without the class"
            )
        for mode, number in enumerate(of_class):
            if number < 2 and (label, mode) in touched:
                raise CombineError(
                    f"mode {mode} of class {name!r} would be left with {number} of its images, and all "
                    f"classes have {info.num_modes} modes, so it cannot go; keep two of its images, or build "
                    "again without them"
                )


def _why_not(
    record: ImageRecord, label: int, others: Sequence[int], forgotten: bool, info: ArtifactInfo
) -> str:
    if others:
        names = " and ".join(repr(info.classes[other]) for other in sorted(set(others)))
        return f"{record.where} was counted as {names}, and is given as {info.classes[label]!r}"
    if forgotten:
        return f"{record.where} was forgotten before"
    return f"{record.where} was never counted, as it was read here"
