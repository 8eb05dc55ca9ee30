"""Builds of streams: which chunks they take from an earlier run, and that they are those of the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from d3hr_datasets import Artifact
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.classes.matching import LabelMap, match_classes
from d3hr_datasets.sources.opening import SourceOptions, open_source
from d3hr_datasets.sources.records import ImageRecord
from d3hr_datasets.sources.relabel import relabel
from tests.support.sources import MODEL, NAMES, parquet, png
from tests.support.tiny import tiny_info, tiny_model

pytestmark = pytest.mark.usefixtures("datasets_cache")


class _Noted:
    """A stream that notes what is read of it."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.num_shards = getattr(source, "num_shards", 1)
        self.num_images = getattr(source, "num_images", None)
        self.read: list[str] = []

    def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
        for record in self.source.records(shard, start):
            self.read.append(record.where)
            yield record


def test_streams_take_chunks_of_the_same_images_and_labels_only(tmp_path: Path) -> None:
    classes = datasets.ClassLabel(names=list(NAMES))

    def write(labels: list[int], others: list[int], first: int = 0) -> None:
        pictures = [{"bytes": png((first + index) % 12), "path": None} for index in range(12)]
        rows = {"picture": pictures, "label": labels, "other": others}
        features = datasets.Features({"picture": datasets.Image(), "label": classes, "other": classes})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data.parquet")

    def build(work: str, column: str = "label", swapped: bool = False) -> torch.Tensor:
        opened = open_source(
            f"datasets:{tmp_path / 'data.parquet'}", SourceOptions(streaming=True, label_column=column)
        )
        labels: LabelMap = {0: 1, 1: 0, 2: 2} if swapped else {0: 0, 1: 1, 2: 2}
        info = dataclasses.replace(tiny_info(dtype="float32"), source=opened.description)
        artifact = build_artifact(
            relabel(opened.images, labels),
            tiny_model(),
            tmp_path / "artifact",
            info,
            tmp_path / work,
            chunk_size=4,
            progress=False,
        )
        return artifact.gaussians(400).mean

    write([index % 3 for index in range(12)], [index // 4 for index in range(12)])
    seen = [build("work"), build("work", "other"), build("work", swapped=True)]
    write([index % 3 for index in range(12)], [index // 4 for index in range(12)], first=1)
    seen.append(build("work"))
    fresh = build("fresh")
    assert torch.equal(seen[3], fresh)
    for index, one in enumerate(seen):
        assert all(not torch.equal(one, other) for other in seen[:index])


def test_streamed_build_goes_on_and_is_that_of_the_images(tmp_path: Path) -> None:
    folder = parquet(
        tmp_path / "parquet", [index % 3 for index in range(12)], datasets.ClassLabel(names=list(NAMES))
    )

    def build(streaming: bool) -> tuple[Artifact, list[str]]:
        opened = open_source(f"datasets:{folder}", SourceOptions(streaming=streaming))
        _, labels = match_classes(opened.classes, MODEL, 3, same_order=True)
        images = _Noted(relabel(opened.images, labels))
        artifact = build_artifact(
            images if streaming else images.source,
            tiny_model(),
            tmp_path / f"artifact-{streaming}",
            tiny_info(dtype="float32"),
            tmp_path / "work",
            batch_size=2,
            chunk_size=4,
            progress=False,
        )
        return artifact, images.read

    direct, _ = build(streaming=False)
    streamed, read = build(streaming=True)
    assert len(read) == 12
    sorted((tmp_path / "work").glob("*-00001-000000000.safetensors"))[0].unlink()
    resumed, read = build(streaming=True)
    assert read == [f"shard 1, image {number}" for number in range(4)]
    assert streamed.info.counts == resumed.info.counts == direct.info.counts == (4, 4, 4)
    assert streamed.info.source["fingerprint"] == direct.info.source["fingerprint"]
    assert streamed.sha256 == resumed.sha256
    torch.testing.assert_close(streamed.gaussians(400).mean, direct.gaussians(400).mean, rtol=0, atol=2e-6)
