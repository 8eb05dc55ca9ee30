"""Train the students of a table and write it: JSON, Markdown and a plot.

    python -m recipes.tables.students recipes/configs/tables/hard-labels.yaml

To choose settings on held-out training images, with an artifact built without them:
`--set select=true --set artifact=FOLDER --output runs/selection/NAME`.

A table is a YAML file: `config` (a settings file below `d3hr_datasets/experiments/protocols/`), `set`
(settings of all students), `rows` (each a `set` of its own, and a `grid` of lists whose combinations are a
row each), `seeds`, and maybe `scores` (LRS and ARS, of rows chosen by their settings) and `plot` (`x` and
`series`, settings). Every student has a folder of its own below its `output`, so that a table goes on where
it was interrupted, and tables share what they have in common. `--keep` trains only the students whose
settings or inputs changed since the table that is there was made, and seeds that it does not have. Tables
that ship write to `hub/results/tables/`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from d3hr_datasets.experiments.kept_rows import kept_students
from d3hr_datasets.experiments.table_files import table_file, write_table
from d3hr_datasets.experiments.table_rows import expand, load_table
from d3hr_datasets.experiments.train_table import students_at_a_time, summarize, train_all
from recipes.common.program import program


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
    parser.add_argument(
        "--keep", action="store_true", help="students of the table that is there, where nothing changed"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the rows")
    arguments = parser.parse_args()
    table = load_table(arguments.table, arguments.set, arguments.seeds, arguments.output)
    rows = expand(table)
    if arguments.dry_run:
        for row in rows:
            settings = row.student(0)
            print(f"{row.name} | {row.config} | {settings.epochs} epochs of {settings.student}")
        return
    written = table_file(table.output, ".json")
    kept = kept_students(written, rows, table.seeds) if arguments.keep else {}
    results = train_all(rows, table.seeds, arguments.jobs or students_at_a_time(), kept=kept)
    summaries = [summarize(row, table.seeds, results) for row in rows]
    write_table(table, summaries, " ".join(["python -m recipes.tables.students", *sys.argv[1:]]))
    print(table_file(table.output, ".md").read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
