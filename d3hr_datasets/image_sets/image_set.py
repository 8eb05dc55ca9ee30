"""Images with labels, and what the labels mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from d3hr_datasets.students.views import Images


@dataclass(frozen=True)
class ImageSet:
    """Images with labels, and what the labels mean.

    Args:
        images: The images, as a student's views are made of.
        classes: Class names, by label.
        wnids: WordNet IDs, by label, where they are known.
        weights: (N,) float32, of each image in the loss, where they were asked for.
    """

    images: Images
    classes: list[str]
    wnids: list[str] | None = None
    weights: torch.Tensor | None = None


def close_images(images: Images) -> None:
    """Say that images are not needed any more, to those of which some lie on disk for this use alone."""
    close = getattr(images, "close", None)
    if close is not None:
        close()
