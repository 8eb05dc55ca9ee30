"""A folder of anybody's real images -> what a protocol has to know of them.

Out: image size, channels, mean and standard deviation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from d3hr_datasets.errors import SourceError
from d3hr_datasets.image_sets.real_images import to_rgb
from d3hr_datasets.sources.image_folders import open_image_folder

SAMPLE = 1000  # images that are measured, spread evenly over the set


def measure_images(folder: Path) -> dict[str, Any]:
    """Return `image_size`, `channels`, `mean` and `std` of a folder with `train`, as fields of a protocol.

    The size is the shorter side that is most frequent. There is one channel where every image is grey (its
    three channels are equal), else there are three. Mean and standard deviation are those of the pixels of up
    to 1,000 images spread evenly over the set, in [0, 1].

    Raises:
        SourceError: There is no `train` with images in it.
    """
    if not (folder / "train").is_dir():
        raise SourceError(
            f"{folder} has no folder train; it needs train/ and val/ (or test/), each with one folder "
            "per class"
        )
    images, _ = open_image_folder(folder / "train")
    count = images.num_images or 0
    sides, grey, sums = [], True, np.zeros((3, 3))  # per channel: number, sum, sum of squares
    for number in sorted({number * count // min(count, SAMPLE) for number in range(min(count, SAMPLE))}):
        record = next(images.records(0, number))
        image, _ = record.read()
        sides.append(min(image.size))
        pixels = np.asarray(to_rgb(image, record.where), dtype=np.float64).reshape(-1, 3) / 255
        grey = grey and bool((pixels == pixels[:, :1]).all())
        sums += np.stack([np.full(3, len(pixels)), pixels.sum(0), (pixels**2).sum(0)])
    mean = sums[1] / sums[0]
    std = np.sqrt(np.maximum(sums[2] / sums[0] - mean**2, 1e-12))
    channels = 1 if grey else 3
    return {
        "image_size": int(np.bincount(sides).argmax()),
        "channels": channels,
        "mean": [round(float(value), 4) for value in mean[:channels]],
        "std": [max(round(float(value), 4), 1e-4) for value in std[:channels]],
    }
