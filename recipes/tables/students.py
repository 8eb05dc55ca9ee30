"""Train the students of a table and write it: JSON, Markdown and a plot.

    python -m recipes.tables.students recipes/configs/tables/hard-labels.yaml

To choose settings on held-out training images, with an artifact built without them:
`--set select=true --set artifact=FOLDER --output runs/selection/NAME`.

A table is a YAML file: `config` (of a student, below `recipes/configs/students/`), `set` (settings of all
students), `rows` (each a `set` of its own, and a `grid` of lists whose combinations are a row each),
`seeds`, and maybe `scores` (LRS and ARS, of rows chosen by their settings) and `plot` (`x` and `series`,
settings). Every student has a folder of its own below `output` (see `recipes.train.student`), so that a
table goes on where it was interrupted, and tables share what they have in common.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from d3hr_datasets.io.atomic import replace_file, replace_text
from d3hr_datasets.students.scores import augmentation_robust_score, label_robust_score, mean_std
from recipes.common.errors import RecipeError
from recipes.common.program import program
from recipes.common.settings import load_settings
from recipes.train.student import run_student
from recipes.train.student_inputs import check_inputs
from recipes.train.student_settings import StudentSettings

STUDENTS = Path("recipes/configs/students")
SCORES: dict[str, tuple[Callable[..., float], tuple[str, ...]]] = {
    "lrs": (label_robust_score, ("real_hard", "random_any", "distilled_hard", "distilled_any")),
    "ars": (
        augmentation_robust_score,
        ("distilled_augmented", "random_augmented", "distilled_plain", "random_plain"),
    ),
}


@dataclass(frozen=True)
class Table:
    """A table; see the module for what its fields hold."""

    title: str
    config: str
    rows: list[dict[str, Any]]
    output: str
    seeds: int = 3
    set: dict[str, Any] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    plot: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row: its name, what it sets, and the settings file it starts from."""

    name: str
    settings: dict[str, Any]
    config: str

    def student(self, seed: int) -> StudentSettings:
        """Return the settings of one of its students."""
        overrides = [f"{key}={json.dumps(value)}" for key, value in self.settings.items()]
        return load_settings(StudentSettings, STUDENTS / self.config, [*overrides, f"seed={seed}"])


def expand(table: Table) -> list[Row]:
    """Return the rows of a table, every combination of a grid on its own.

    `{ipc}` in the name of a config is replaced by that setting of the row.

    Raises:
        RecipeError: A row has unknown keys, or two have the same name.
    """
    rows = []
    for row in table.rows:
        unknown = sorted(set(row) - {"name", "config", "set", "grid"})
        if unknown:
            raise RecipeError(f"unknown keys {unknown} of a row; accepted: name, config, set, grid")
        grid = row.get("grid", {})
        for values in itertools.product(*grid.values()):
            own = {**row.get("set", {}), **dict(zip(grid, values, strict=True))}
            parts = [row["name"]] if "name" in row else []
            shown = {key: own[key] for key in (grid if parts else own) if key != "torch_compile"}
            shown = dict(sorted(shown.items(), key=lambda item: item[0] != "source"))  # first
            parts += [_shown(key, value) for key, value in shown.items()]
            settings = {**table.set, **own}
            config = row.get("config", table.config).format_map(settings)
            rows.append(Row(", ".join(parts), settings, config))
    names = [row.name for row in rows]
    if len(set(names)) != len(names):
        raise RecipeError(f"rows {sorted({n for n in names if names.count(n) > 1})} have the same name")
    return rows


def _shown(key: str, value: Any) -> str:
    if key == "source":
        return str(value).replace("_", " ")
    if isinstance(value, dict):
        return ", ".join(_shown(inner, what) for inner, what in value.items())
    return str(value) if key in {"student", "labels"} else f"{key.replace('_', ' ')} {value}"


def run(settings: StudentSettings, threads: int) -> dict[str, Any]:
    """Train one student in a process of its own."""
    torch.set_num_threads(threads)
    return run_student(settings, progress=False)


def train_all(rows: list[Row], seeds: int, jobs: int) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the results of all students, trained `jobs` at a time."""
    tasks = {(row.name, seed): row.student(seed) for seed in range(seeds) for row in rows}  # fail before work
    for settings in tasks.values():
        check_inputs(settings)
    results = {}
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context) as pool, tqdm(total=len(tasks), unit="student") as bar:
        futures = {pool.submit(run, settings, threads): key for key, settings in tasks.items()}
        try:
            for future in as_completed(futures):
                key = futures[future]
                results[key] = future.result()
                bar.write(f"{key[0]}, seed {key[1]}: {results[key]['top1']:.2f}")
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def summarize(row: Row, seeds: int, results: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Return what the table says of a row."""
    own = [results[row.name, seed] for seed in range(seeds)]
    summary: dict[str, Any] = {"name": row.name, "set": row.settings}
    for metric in ("top1", "top5"):
        values = [result[metric] for result in own]
        mean, std = mean_std(values)
        summary[metric] = {"mean": mean, "std": std, "values": values}
    for key in ("num_images", "parameters", "teacher", "label_bytes", "tested_on", "inputs"):
        summary[key] = own[0][key]
    summary["seconds"] = sum(result["seconds"] for result in own)
    summary["settings"] = {**own[0]["settings"], "seed": list(range(seeds))}
    return summary


def pick(rows: list[dict[str, Any]], where: dict[str, Any]) -> float:
    """Return the mean accuracy, as a fraction, of the only row with these settings."""
    found = [row for row in rows if all(row["settings"].get(key) == value for key, value in where.items())]
    if len(found) != 1:
        raise RecipeError(f"{where} must describe one row, not {[row['name'] for row in found]}")
    return float(found[0]["top1"]["mean"] / 100)


def score(spec: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an LRS or ARS with the accuracies it is made of."""
    function, names = SCORES[spec["kind"]]
    parts = {name: pick(rows, spec[name]) for name in names}
    return {"name": spec["name"], "kind": spec["kind"], "value": function(**parts), **parts}


def markdown(table: Table, rows: list[dict[str, Any]], scores: list[dict[str, Any]]) -> str:
    """Return the table for people."""
    lines = [f"# {table.title}", "", "| training set | top-1, % | top-5, % | images | label bytes |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for row in rows:
        cells = []
        for metric in ("top1", "top5"):
            std = row[metric]["std"]
            cells.append(f"{row[metric]['mean']:.1f}" + ("" if std is None else f" ± {std:.1f}"))
        labels = row["label_bytes"]
        cost = f"{labels:,}" if labels is not None else "0" if row["teacher"] is None else _teacher_cost(row)
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['num_images']:,} | {cost} |")
    if scores:
        lines += ["", "| score | value |", "| --- | --- |"]
        lines += [f"| {s['name']} ({s['kind'].upper()}) | {s['value']:.3f} |" for s in scores]
    seeds = f"mean and std of {table.seeds} seeds, of images and training alike"
    tested = f"Accuracy after the last epoch on the {rows[0]['tested_on']}"
    lines += ["", f"{tested}; {'one seed' if table.seeds == 1 else seeds}."]
    return "\n".join(lines) + "\n"


def _teacher_cost(row: dict[str, Any]) -> str:
    """Return what labels of every view cost: the teacher, which must be at hand."""
    weights = Path(row["settings"]["teacher"].removeprefix("local-dir:")) / "model.safetensors"
    return f"teacher, {weights.stat().st_size:,}" if weights.exists() else "teacher at hand"


def plot(table: Table, rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy over a setting, a line for each value of another; or a bar for each row."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    height = 4.5 if table.plot else max(4.5, 0.4 * len(rows))
    figure, axes = plt.subplots(figsize=(7, height), layout="constrained")
    if table.plot:
        x, series = table.plot["x"], table.plot["series"]
        lines: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            lines.setdefault(str(row["settings"][series]), []).append(row)
        for name, points in lines.items():
            means = [row["top1"]["mean"] for row in points]
            if len(points) == 1:
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
    plt.close(figure)


def write_table(table: Table, rows: list[dict[str, Any]], command: str) -> None:
    """Write OUTPUT.json, OUTPUT.md and OUTPUT.png."""
    scores = [score(spec, rows) for spec in table.scores]
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
    document = {"title": table.title, "command": command, "machine": machine, "rows": rows, "scores": scores}
    output = Path(table.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    texts = {".json": json.dumps(document, indent=1) + "\n", ".md": markdown(table, rows, scores)}
    replace_file(output.with_suffix(".png"), lambda path: plot(table, rows, path))
    for ending, text in texts.items():
        replace_text(output.with_suffix(ending), text)


def load_table(
    path: Path, overrides: list[str], seeds: int | None = None, output: Path | None = None
) -> Table:
    """Read a table; `overrides` are settings of all its students."""
    own = [f"seeds={seeds}"] if seeds is not None else []
    own += [f"output={json.dumps(str(output))}"] if output is not None else []
    table = load_settings(Table, path, own)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise RecipeError(f"--set {override!r} is not of the form KEY=VALUE")
        table.set[key] = yaml.safe_load(text)
    return table


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of all students")
    parser.add_argument("--seeds", type=int, help="instead of those of the table")
    parser.add_argument("--output", type=Path, help="instead of that of the table, without an ending")
    parser.add_argument("--jobs", type=int, help="students at a time; all cores, on a GPU 1")
    parser.add_argument("--dry-run", action="store_true", help="list the rows")
    arguments = parser.parse_args()
    table = load_table(arguments.table, arguments.set, arguments.seeds, arguments.output)
    rows = expand(table)
    if arguments.dry_run:
        for row in rows:
            settings = row.student(0)
            print(f"{row.name} | {row.config} | {settings.epochs} epochs of {settings.student}")
        return
    jobs = arguments.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    results = train_all(rows, table.seeds, jobs)
    summaries = [summarize(row, table.seeds, results) for row in rows]
    write_table(table, summaries, " ".join(["python -m recipes.tables.students", *sys.argv[1:]]))
    print(Path(table.output).with_suffix(".md").read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
