"""The command `d3hr list`: the named data sets, and whether their artifacts are ready.

In: nothing. Out: a line for each name, or JSON, on stdout.
"""

from __future__ import annotations

from typing import Any

import typer

from d3hr_datasets.cli_common.output import JsonOption, print_json

COLUMNS = ("name", "classes", "pixels", "stands for", "class", "ready")


def list_datasets(as_json: JsonOption = False) -> None:
    """List the named data sets, and say which of them are ready to use.

    Columns: the name, the number of classes, the side of the images in pixels where the artifact is here,
    the number of real training images that the set stands for, the class in Python, and where the artifact
    is: embedded (in this package), a repository on the Hub, or not published. Nothing is downloaded.
    """
    from d3hr_datasets.dataset.artifact_registry import REGISTRY

    rows = [_row(name) for name in sorted(REGISTRY)]
    if as_json:
        print_json(rows)
        return
    lines = [list(COLUMNS)]
    for row in rows:
        size, number = row["image_size"], row["num_images"]
        lines.append(
            [
                row["name"],
                str(row["num_classes"]),
                "?" if size is None else f"{size} x {size}",
                f"{number:,} images",
                row["class"],
                row["ready"],
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        typer.echo("  ".join(cells).rstrip())


def _row(name: str) -> dict[str, Any]:
    """Return what is known of a name. An artifact on the Hub is not looked at: it may have to be fetched."""
    from d3hr_datasets.artifact.artifact import Artifact
    from d3hr_datasets.classes.class_list import ClassList
    from d3hr_datasets.dataset.artifact_registry import REGISTRY, embedded_artifact
    from d3hr_datasets.dataset.named_datasets import named_dataset

    row = REGISTRY[name]
    image_size, ready = None, "not published"
    if row.folder is not None:
        image_size = Artifact.load(embedded_artifact(name)).info.image_size
        ready = "embedded"
    elif row.repo_id is not None:
        ready = f"{row.repo_id}@{row.revision}"
    return {
        "name": name,
        "class": named_dataset(name).__name__,
        "num_classes": len(ClassList.packaged(name).names),
        "image_size": image_size,
        "num_images": row.num_images,
        "ready": ready,
    }
