"""Train the students of a table and write it: JSON, Markdown and a plot.

    python -m recipes.tables.students recipes/configs/tables/hard-labels.yaml

To choose settings on held-out training images, with an artifact built without them:
`--set select=true --set artifact=FOLDER --output runs/selection/NAME`.

A table is a YAML file: `config` (of a student, below `recipes/configs/students/`), `set` (settings of all
students), `rows` (each a `set` of its own, and a `grid` of lists whose combinations are a row each),
`seeds`, and maybe `scores` (LRS and ARS, of rows chosen by their settings) and `plot` (`x` and `series`,
settings). Every student has a folder of its own below `output` (see `recipes.train.student`), so that a
table goes on where it was interrupted, and tables share what they have in common. Those that ship write to
`hub/results/tables/`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from d3hr_datasets.students.scores import mean_std
from recipes.common.program import program
from recipes.tables.student_rows import Row, expand, load_table
from recipes.tables.student_table import write_table
from recipes.train.student import run_student
from recipes.train.student_inputs import check_inputs
from recipes.train.student_settings import StudentSettings


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
