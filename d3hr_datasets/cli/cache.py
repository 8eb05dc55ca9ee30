"""The commands `d3hr cache ...`: list, check and remove generated sets.

In: the folder of a cache. Out: what is in it, what is damaged, and what was removed, on stdout.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from d3hr_datasets.cli_common.output import JsonOption, RootOption, format_bytes, print_json
from d3hr_datasets.errors import CacheError
from d3hr_datasets.io.paths import expand_user

cache_app = typer.Typer(no_args_is_help=True, help="List, check and remove generated sets.")


@cache_app.command("list")
def list_sets(root: RootOption = None, as_json: JsonOption = False) -> None:
    """List the generated sets of a cache."""
    from d3hr_datasets.cache.inspection import list_cached_sets

    sets = list_cached_sets(_cache_root(root))
    if as_json:
        print_json([{**dataclasses.asdict(found), "folder": str(found.folder)} for found in sets])
        return
    for found in sets:
        groups = f"{found.num_complete_groups} of {found.num_groups} classes"
        size = format_bytes(found.num_bytes)
        epoch = "" if found.epoch is None else f", for epoch {found.epoch}"
        typer.echo(f"{found.name}  {groups}, {found.num_images} images, {size}{epoch}")


@cache_app.command("verify")
def verify_sets(
    names: Annotated[list[str] | None, typer.Argument(metavar="SET", help="All by default.")] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every file of generated sets and print the damaged ones. Exits with 1 if there are any."""
    from d3hr_datasets.cache.inspection import list_cached_sets, verify_cached_set

    folder = _cache_root(root)
    names = names or [found.name for found in list_cached_sets(folder)]
    damaged: dict[str, list[str]] = {}
    unread = 0
    for name in names:
        try:
            damaged[name] = [str(path) for path in verify_cached_set(folder, name)]
        except CacheError as error:  # of another format, say; the others are still looked at
            unread += 1
            typer.echo(f"d3hr: {' '.join(str(error).split())}", err=True)
    if as_json:
        print_json(damaged)
    else:
        for paths in damaged.values():
            for path in paths:
                typer.echo(path)
    num_damaged = sum(map(len, damaged.values()))
    typer.echo(f"{len(damaged)} sets, {num_damaged} damaged files", err=True)
    if num_damaged or unread:
        raise typer.Exit(1)


@cache_app.command("prune")
def prune_sets(
    names: Annotated[list[str] | None, typer.Argument(metavar="SET", help="Sets to remove.")] = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Remove the damaged classes of all sets.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what killed processes left, and on request sets or damaged classes.

    Sets of epochs (`resample="epoch"`) are left, too, once no process uses them.

    Prints what goes, with its bytes, and asks before it does where a terminal is attached. Only files that
    this library has written go; links are not followed.
    """
    from d3hr_datasets.cache.prune import plan_prune

    plan = plan_prune(_cache_root(root), names or (), damaged=damaged)
    ask = bool(plan.removals) and not yes and has_terminal()
    if ask or not as_json:
        for removal in plan.removals:
            typer.echo(f"{removal.path}  {removal.num_bytes} bytes", err=as_json)
    if ask:
        typer.confirm(f"Remove these, {format_bytes(plan.num_bytes)}?", abort=True, err=True)
    report = plan.execute()
    if as_json:
        print_json({"removed": list(map(str, report.removed)), "num_bytes": report.num_bytes})
    for path in (removal.path for removal in plan.removals):
        if path not in report.removed:
            typer.echo(f"{path} stays: it has changed meanwhile", err=True)
        elif os.path.lexists(path):
            typer.echo(f"{path} stays: there is something else in it", err=True)
    typer.echo(f"{format_bytes(report.num_bytes)} freed", err=True)


def has_terminal() -> bool:
    """Say whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def _cache_root(root: Path | None) -> Path:
    from d3hr_datasets.cache.files import default_root

    return default_root() if root is None else expand_user(root)
