"""A table's rows with their accuracies -> scores, and the table as JSON, Markdown and a plot."""

from __future__ import annotations

import json
import os
import platform
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments.table_rows import Table
from d3hr_datasets.io.atomic import replace_file, replace_text
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.markdown import markdown as markdown_text
from d3hr_datasets.io.markdown import markdown_table
from d3hr_datasets.students.scores import augmentation_robust_score, label_robust_score

SCORES: dict[str, tuple[Callable[..., float], tuple[str, ...]]] = {
    "lrs": (label_robust_score, ("real_hard", "random_any", "distilled_hard", "distilled_any")),
    "ars": (
        augmentation_robust_score,
        ("distilled_augmented", "random_augmented", "distilled_plain", "random_plain"),
    ),
}


FIXED = {"curated", "herding", "k center", "whole"}  # sources whose images no seed changes


def pick(rows: list[dict[str, Any]], where: dict[str, Any]) -> float:
    """Return the mean accuracy, as a fraction, of the only row with these settings, or this `name`."""
    known = [{**row["settings"], "name": row["name"]} for row in rows]
    found = [
        row
        for row, values in zip(rows, known, strict=True)
        if all(values.get(key) == value for key, value in where.items())
    ]
    if len(found) != 1:
        raise ConfigError(f"{where} must describe one row, not {[row['name'] for row in found]}")
    return float(found[0]["top1"]["mean"] / 100)


def score(spec: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an LRS or ARS with the accuracies it is made of."""
    function, names = SCORES[spec["kind"]]
    parts = {name: pick(rows, spec[name]) for name in names}
    return {"name": spec["name"], "kind": spec["kind"], "value": function(**parts), **parts}


def markdown(table: Table, rows: list[dict[str, Any]], scores: list[dict[str, Any]]) -> str:
    """Return the table for people."""
    cells = []
    for row in rows:
        accuracies = []
        for metric in ("top1", "top5"):
            std = row[metric]["std"]
            accuracies.append(f"{row[metric]['mean']:.1f}" + ("" if std is None else f" ± {std:.1f}"))
        labels = row["label_bytes"]
        cost = f"{labels:,}" if labels is not None else "0" if row["teacher"] is None else _teacher_cost(row)
        cells.append([row["name"], *accuracies, f"{row['num_images']:,}", cost])
    header = ["training set", "top-1, %", "top-5, %", "images", "label bytes"]
    parts = [f"# {table.title}", markdown_table(header, cells)]
    if scores:
        values = [[f"{s['name']} ({s['kind'].upper()})", f"{s['value']:.3f}"] for s in scores]
        parts.append(markdown_table(["score", "value"], values))
    parts.append(_about(rows, table.seeds))
    parts += ["\n".join(f"- {markdown_text(note)}" for note in table.notes)] if table.notes else []
    return "\n\n".join(parts) + "\n"


def _about(rows: list[dict[str, Any]], seeds: int) -> str:
    """Return what the figures are: after which epoch, of how many seeds, and what a seed changes."""
    tested = f"Accuracy after the last epoch on the {rows[0]['tested_on']}"
    if seeds == 1:
        return f"{tested}; one seed."
    fixed = {row["settings"]["source"].replace("_", " ") for row in rows} & FIXED
    but = f", but for {' and '.join(sorted(fixed))}, whose images are the same in every seed" if fixed else ""
    return f"{tested}; mean and std of {seeds} seeds, of images and training alike{but}."


def _teacher_cost(row: dict[str, Any]) -> str:
    """Return what labels of every view cost: the teacher, which must be at hand."""
    if row.get("teacher_bytes") is not None:
        return f"teacher, {row['teacher_bytes']:,}"
    weights = Path(row["settings"]["teacher"].removeprefix("local-dir:")) / "model.safetensors"
    return f"teacher, {weights.stat().st_size:,}" if weights.exists() else "teacher at hand"


def plot(table: Table, rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy over a setting, a line for each value of another; or a bar for each row."""
    with needs_extra("train", "plots are drawn by matplotlib"):
        from matplotlib.figure import Figure

    height = 4.5 if table.plot else max(4.5, 0.4 * len(rows))
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.subplots()
    if table.plot:
        x = table.plot["x"]
        lines: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            lines.setdefault(_line_of(row["settings"], table.plot["series"]), []).append(row)
        for name, points in lines.items():
            means = [row["top1"]["mean"] for row in points]
            if not points[0]["settings"][x]:  # of no number of images: the whole set
                axes.axhline(means[0], label=name, linestyle="--", color="grey")
                continue
            stds = [row["top1"]["std"] or 0 for row in points]
            axes.errorbar(
                [row["settings"][x] for row in points], means, stds, label=name, marker="o", capsize=3
            )
        if x == "ipc":
            axes.set_xscale("log")
        axes.set_xlabel(x.replace("_", " "))
        axes.set_ylabel("top-1, %")
        axes.legend(fontsize="small")
    else:
        means, stds = ([row["top1"][key] or 0 for row in rows[::-1]] for key in ("mean", "std"))
        axes.barh([textwrap.fill(row["name"], 40) for row in rows[::-1]], means, xerr=stds)
        axes.tick_params(axis="y", labelsize="small")
        axes.set_xlabel("top-1, %")
        axes.set_xlim(left=max(0, min(means) - 10))
    figure.suptitle(textwrap.fill(table.title, 70), fontsize="medium")
    figure.savefig(path, dpi=120, format="png")


def _line_of(settings: dict[str, Any], series: str) -> str:
    """Return the line that a row is a point of: fresh groups are not those that stay."""
    fresh = ", fresh groups" if settings.get("resample_every") else ""
    return f"{settings[series]}".replace("_", " ") + fresh


def table_file(output: str | Path, ending: str) -> Path:
    """Return a file of a table; its name may have dots in it."""
    return Path(f"{output}{ending}")


def write_table(
    table: Table, rows: list[dict[str, Any]], command: str, further: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write OUTPUT.json, OUTPUT.md and OUTPUT.png.

    Args:
        table: The table.
        rows: What is said of each of its rows.
        command: That writes it.
        further: What else the JSON says.

    Returns:
        What the JSON says.
    """
    scores = [score(spec, rows) for spec in table.scores]
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
    document = {"title": table.title, "command": command, "machine": machine, "rows": rows, "scores": scores}
    document |= {"notes": table.notes} if table.notes else {}
    document |= further or {}
    output = Path(table.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    texts = {".json": json.dumps(document, indent=1) + "\n", ".md": markdown(table, rows, scores)}
    replace_file(table_file(output, ".png"), lambda path: plot(table, rows, path))
    for ending, text in texts.items():
        replace_text(table_file(output, ending), text)
    return document
