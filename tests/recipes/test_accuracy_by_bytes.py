"""Accuracy against stored bytes: what each way to store a set costs, and a plot of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from d3hr_datasets.artifact.d3hr_json import STATISTICS
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.image_sets.training_set_settings import TrainingSet
from d3hr_datasets.image_sets.training_sets import training_set
from recipes.common.results import read_results
from recipes.tables import accuracy_by_bytes
from tests.docs.pages import ROOT


def _row(real: Path, source: str, ipc: int, seeds: int = 2) -> dict[str, Any]:
    settings = {
        "dataset": str(real),
        "source": source,
        "ipc": ipc,
        "seed": list(range(seeds)),
        "student": "x",
    }
    return {"settings": settings, "top1": {"mean": 50.0 + ipc, "std": 1.0, "values": [1, 2]}}


def test_what_is_stored_is_counted(real: Path, tmp_path: Path) -> None:
    rows = [_row(real, source, ipc) for source, ipc in (("random_real", 1), ("random_real", 2), ("whole", 0))]
    rows += [_row(real, source, ipc) for source, ipc in (("modes", 1), ("modes", 2), ("default", 1))]
    found = accuracy_by_bytes.points(rows)
    png = {point["ipc"]: point["bytes"] for point in found if point["stored"] == accuracy_by_bytes.PNG}
    sizes = []
    for seed in (0, 1):
        images = training_set(
            TrainingSet(dataset=str(real), source="random_real", ipc=2, seed=seed), tmp_path
        )
        files = [io.BytesIO() for _ in range(len(images.images))]
        for index, file in enumerate(files):
            image: Any = images.images[index][0]
            picture = to_pil_image(image) if isinstance(image, torch.Tensor) else image
            assert isinstance(picture, Image.Image)
            picture.save(file, "PNG", optimize=True)
        sizes.append(sum(len(file.getvalue()) for file in files))
    assert png[2] == round(sum(sizes) / 2) and 0 < png[1] < png[2] < png[0]
    folder = embedded_artifact("fashion-mnist")
    distilled = [point for point in found if point["stored"] != accuracy_by_bytes.PNG]
    assert [(point["stored"], point["ipc"]) for point in distilled] == [
        (way, ipc) for ipc in (2, 1) for way in accuracy_by_bytes.DISTILLED
    ]
    assert distilled[0]["bytes"] == (folder / STATISTICS).stat().st_size
    assert distilled[1]["bytes"] > distilled[0]["bytes"] + 5_000_000  # a model of megabytes
    accuracy_by_bytes.draw({"a table": found, "another": found[:2]}, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.height > plot.width


def test_what_the_results_page_says_of_small_images_holds() -> None:
    """Five hundred real images take fewer bytes than the statistics; few distilled ones are better."""
    tables = read_results(ROOT / "hub" / "results" / "accuracy_by_bytes.json")["results"]
    found = {(point["stored"], point["ipc"]): point for points in tables.values() for point in points}
    png, statistics = accuracy_by_bytes.PNG, accuracy_by_bytes.STATISTICS_ONLY
    assert found[png, 50]["bytes"] < found[statistics, 50]["bytes"]
    for points in tables.values():
        means = {(point["stored"], point["ipc"]): point["mean"] for point in points}
        for ipc in {1, 10} & {point["ipc"] for point in points}:
            assert means[statistics, ipc] > means[png, ipc]
