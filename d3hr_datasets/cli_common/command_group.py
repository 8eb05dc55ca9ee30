"""Groups of commands that say what is wrong on one line.

In: arguments. Out: data on stdout, everything else on stderr. Exit codes: 0, 1 (failed), 2 (usage), 130
(interrupted).
"""

from __future__ import annotations

import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from d3hr_datasets.cli_common.error_lines import error_line
from d3hr_datasets.errors import D3HRError
from d3hr_datasets.io.text import printable


class ErrorsAsLines(TyperGroup):
    """A group of commands that prints an error of this library as one line and exits with 1.

    What the library says of its arguments names the options of the command that ran.
    """

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run with outputs that show the number of a letter which their encoding does not have."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*arguments, **options)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command."""
        try:
            return super().invoke(ctx)
        except D3HRError as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            typer.echo(f"d3hr: {printable(error_line(error, command))}", err=True)
            raise typer.Exit(1) from error
        except OSError as error:  # of the system: a full disk, a place that cannot be written
            if isinstance(error, BrokenPipeError):
                raise
            typer.echo(
                f"d3hr: {printable(error)}. Free some space, or give a place that can be written", err=True
            )
            raise typer.Exit(1) from error


def command_group(summary: str) -> typer.Typer:
    """Return a group without commands; `summary` is what its help begins with."""
    return typer.Typer(
        name="d3hr",
        cls=ErrorsAsLines,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help=summary,
    )
