"""The tiny images as others may store them, and what is read of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.sources.opening import OpenedSource
from tests.support.tiny import CLASSES, TinyImages

NAMES = ("ant", "bee_wasp", "cat")
MODEL = ClassList(CLASSES, ("n1", "n2", "n3"))
# The label of each of the tiny images, by its pixels.
EXPECTED = {np.asarray(image).tobytes(): label for image, label in map(TinyImages().__getitem__, range(12))}


def png(index: int) -> bytes:
    """Return a file of one of the tiny images."""
    buffer = io.BytesIO()
    TinyImages()[index][0].save(buffer, "PNG")
    return buffer.getvalue()


def parquet(folder: Path, labels: list[Any], feature: Any) -> Path:
    """Write the tiny images with these labels into two shards; return their folder."""
    folder.mkdir()
    rows = {"picture": [{"bytes": png(index), "path": None} for index in range(12)], "label": labels}
    features = datasets.Features({"picture": datasets.Image(), "label": feature})
    data = datasets.Dataset.from_dict(rows, features=features)
    for shard in range(2):
        data.shard(2, shard).to_parquet(folder / f"train-{shard:05d}-of-00002.parquet")
    return folder


def pixels(opened: OpenedSource) -> dict[bytes, Any]:
    """Return the label of each image, by its pixels."""
    shards = range(opened.images.num_shards)
    items = [record.read() for shard in shards for record in opened.images.records(shard, 0)]
    return {np.asarray(image.convert("L")).tobytes(): label for image, label in items}
