"""Images that are inverted again -> sums without what they added.

In: images with the rows of the membership that count them, and the model. Out: their sums, and sums without
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.latent_sums import LatentSums, least_squares
from d3hr_datasets.build.exact_moments import ExactMoments, latent_sums
from d3hr_datasets.build.reading_ahead import ReadAhead, image_digest
from d3hr_datasets.combine.counted_images import CountedImage
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import CombineError
from d3hr_datasets.numerics.torch_settings import neutral

# Share of what is taken away by which it may exceed what is there, where a model rounds otherwise: by the
# precision of the model; and units.
ROUND_OFF = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 4e-3, torch.bfloat16: 3e-2}
LEAST = 2**16


def inverted_sums(
    batch_size: int,
    counted: Sequence[CountedImage],
    artifact: Artifact,
    model: LatentDiffusion,
    num_readers: int,
) -> LatentSums:
    """Return the sums of images, each inverted again and counted as often, and in the modes, as it was."""
    info = artifact.info
    rows = len(info.classes) * info.num_modes
    moments = {time: ExactMoments(rows, info.latent_shape) for time in info.inversion.timesteps}
    by_record = {id(image.record): image for image in counted}
    reading = ReadAhead([image.record for image in counted], batch_size, info, num_readers)
    for batch in reading.batches():
        items = [future.result() for _, future in batch]
        for (record, _), (image, label) in zip(batch, items, strict=True):
            if image_digest(image, label) != by_record[id(record)].pixels:
                raise CombineError(
                    f"{record.where} has changed since it was looked up in the membership; nothing was "
                    "written: run it again when nobody writes to the images"
                )
        labels = torch.tensor([label for _, label in items])
        latents = model.encode(torch.stack([image for image, _ in items]))
        inverted = model.invert(latents, labels, info.inversion)
        places = [
            (number, one.label * info.num_modes + one.mode)
            for number, (record, _) in enumerate(batch)
            for one in by_record[id(record)].members
            for _ in range(one.copies)
        ]
        for first in range(0, len(places), batch_size):  # of an image there may be thousands of copies
            some = zip(*places[first : first + batch_size], strict=True)
            numbers, counted_as = (torch.tensor(values) for values in some)
            for time, one_moments in moments.items():
                one_moments.update(inverted[time].cpu()[numbers], counted_as)
    return latent_sums(moments, info.num_modes)


@neutral()
def taken_away(sums: LatentSums, removed: LatentSums, dtype: torch.dtype) -> LatentSums:
    """Return sums without others.

    Latents that are inverted again may differ in their last digits. Where that leaves less than no variance,
    there is none.

    Args:
        sums: Of all images.
        removed: Of those that go.
        dtype: Precision of the model.

    Raises:
        CombineError: They differ in more than that.
    """
    count = sums.count - removed.count
    left, squares = {}, {}
    for time, before in sums.sums.items():
        left[time] = before - removed.sums[time]
        found = sums.squares[time] - removed.squares[time]
        least = least_squares(left[time], count)
        if (least - found.double() > ROUND_OFF[dtype] * removed.squares[time].double() + LEAST).any():
            raise CombineError(
                f"the images, inverted again to {time}, are not what was counted: more would be taken away "
                "than there is; use the precision and the kind of device that the artifact was built with"
            )
        squares[time] = found.maximum(least.long())
    return LatentSums(count, left, squares)
