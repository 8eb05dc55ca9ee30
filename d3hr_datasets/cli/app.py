"""The `d3hr` command: its commands, each from the module of its name.

In: arguments. Out: data on stdout, everything else on stderr; exit codes as `terminal.command_group` says.
What takes long to import is imported by the commands that use it, so that help and shell completion answer at
once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from d3hr_datasets.build.__main__ import build
from d3hr_datasets.cli.adapt import adapt
from d3hr_datasets.cli.artifact import info, verify
from d3hr_datasets.cli.budgets import budgets
from d3hr_datasets.cli.cache import cache_app
from d3hr_datasets.cli.combine import forget, merge
from d3hr_datasets.cli.curate import curate
from d3hr_datasets.cli.dataset import export, materialize
from d3hr_datasets.cli.evaluate import evaluate
from d3hr_datasets.cli.import_statistics import import_statistics
from d3hr_datasets.cli.learn import learn
from d3hr_datasets.cli.list_datasets import list_datasets
from d3hr_datasets.cli.publish import card, publish
from d3hr_datasets.cli.report import report
from d3hr_datasets.cli.train import train_app
from d3hr_datasets.cli_common.command_group import command_group
from d3hr_datasets.version import __version__

app = command_group(
    "Distilled image data sets: look at artifacts, generate, keep and export images, train students and "
    "models."
)
app.add_typer(cache_app, name="cache")
app.add_typer(train_app, name="train")
OF_ARTIFACTS = (build, curate, learn, budgets, merge, forget, adapt, report, card, publish, info, verify)
for command in (*OF_ARTIFACTS, materialize, export, evaluate):
    app.command()(command)
app.command("import")(import_statistics)
app.command("list")(list_datasets)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"d3hr {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""
