"""Accuracy against stored bytes: tables of students -> a plot and a results file.

    python -m recipes.tables.accuracy_by_bytes

Random real images are stored as PNG files, a distilled set as the statistics of the artifact, or as these and
the diffusion model, which many artifacts may share. Soft labels cost the teacher in either way, which is not
counted. Writes `hub/results/accuracy_by_bytes.json` and the plot beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import STATISTICS
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.image_sets.training_set_settings import TrainingSet
from d3hr_datasets.image_sets.training_sets import training_set
from d3hr_datasets.io.atomic import replace_file
from d3hr_datasets.io.extras import needs_extra
from recipes.common.prerequisites import need
from recipes.common.program import program
from recipes.common.results import read_results, write_results
from recipes.tables import result_tables

TABLES = ("hard-labels", "hard-labels-50", "soft-labels", "curve")
PNG, STATISTICS_ONLY, WITH_MODEL = "PNG files", "statistics", "statistics and model"
DISTILLED = (STATISTICS_ONLY, WITH_MODEL)
WAYS = {"random_real": (PNG,), "whole": (PNG,), "modes": DISTILLED, "default": DISTILLED}


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", nargs="+", default=TABLES, metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path("hub/results/accuracy_by_bytes.json"))
    arguments = parser.parse_args()
    results = {}
    for name in arguments.tables:
        path = result_tables.RESULTS / "tables" / f"{name}.json"
        need(path, f"python -m recipes.tables.students recipes/configs/tables/{name}.yaml")
        document = read_results(path)
        if not result_tables.is_earlier(document["rows"]):
            results[document["title"]] = points(document["rows"])
    artifact = Artifact.load(embedded_artifact("fashion-mnist"))
    write_results(arguments.output, {"artifact": artifact.fingerprint}, results)
    replace_file(arguments.output.with_suffix(".png"), lambda file: draw(results, file))


def points(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return accuracy and bytes of each row and each way to store its images."""
    folder = embedded_artifact("fashion-mnist")
    statistics = (folder / STATISTICS).stat().st_size
    model = sum(file.stat().st_size for file in (folder / "model").rglob("*") if file.is_file())
    found = []
    by_default = [row["settings"]["ipc"] for row in rows if row["settings"]["source"] == "default"]
    for row in rows:
        if row["settings"]["source"] == "modes" and row["settings"]["ipc"] in by_default:
            continue  # the default is what users get
        for way in WAYS.get(row["settings"]["source"], ()):
            if way == PNG:
                stored = png_bytes(row["settings"])
            else:
                stored = statistics + (model if way == WITH_MODEL else 0)
            top1 = {key: row["top1"][key] for key in ("mean", "std", "values")}
            found.append({"stored": way, "ipc": row["settings"]["ipc"], "bytes": stored, **top1})
    return found


def png_bytes(settings: dict[str, Any]) -> int:
    """Return the bytes of a row's real images as PNG files, the mean over its seeds."""
    sizes = []
    for seed in settings["seed"] if settings["ipc"] else [0]:
        names = {field.name for field in dataclasses.fields(TrainingSet)}
        own = {name: value for name, value in settings.items() if name in names}
        images = training_set(TrainingSet(**{**own, "seed": seed}), "runs").images
        sizes.append(sum(_png_size(images[index][0]) for index in range(len(images))))
    return round(sum(sizes) / len(sizes))


def _png_size(image: Any) -> int:
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else to_pil_image(image)
    picture.save(file, "PNG", optimize=True)
    return file.tell()


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw a panel for each table, with the images per class beside each point."""
    with needs_extra("train", "plots are drawn by matplotlib"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6 * len(results)), layout="constrained")
    panels = figure.subplots(len(results), squeeze=False)[:, 0]
    for axes, (title, found) in zip(panels, results.items(), strict=True):
        for way in (PNG, STATISTICS_ONLY, WITH_MODEL):
            own = [point for point in found if point["stored"] == way]
            xs, means = ([point[key] for point in own] for key in ("bytes", "mean"))
            stds = [point["std"] or 0 for point in own]
            style = "o-" if way == PNG else "s:"
            axes.errorbar(xs, means, stds, fmt=style, label=way, capsize=3)
            for point in own:
                where = (point["bytes"], point["mean"])
                number = str(point["ipc"] or "all")
                axes.annotate(number, where, xytext=(5, -9), textcoords="offset points", fontsize="x-small")
        axes.set(xscale="log", xlabel="bytes", ylabel="top-1, %")
        axes.set_title(title, fontsize="small", wrap=True)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120, format="png")


if __name__ == "__main__":
    main()
