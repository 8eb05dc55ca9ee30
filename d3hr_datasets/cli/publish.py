"""The commands `d3hr card` and `d3hr publish`: describe an artifact for people, and put it on the Hub.

In: an artifact in a folder. Out: its card, or a commit on the Hub and the line that pins it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d3hr_datasets.cli_common.output import JsonOption, RootOption, print_json
from d3hr_datasets.io.text import printable

if TYPE_CHECKING:
    from d3hr_datasets.publish.upload import PlannedFile

FolderArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Folder of an artifact.")]


def card(
    artifact: FolderArgument,
    repo_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ORG/NAME]", help="Where it will be on the Hub; the card's snippet names it."
        ),
    ] = None,
    preview_ipc: Annotated[
        int | None,
        typer.Option(min=1, help="Images per class of the preview. [as many as it has, or 1]"),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="JSON of recipes.tables.students, for a table of accuracies. [the one it has]"),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="report.json of `d3hr report --images`, for what it says of near copies. [what it has]"
        ),
    ] = None,
    root: RootOption = None,
    device: Annotated[str | None, typer.Option(help="Where to generate, as in PyTorch.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write README.md, a contact sheet and a Parquet preview of an artifact into its folder.

    Generates a few images. Of a card that is there, accuracies, near copies, the size of the preview and what
    stands below the line about notes are kept.
    """
    from d3hr_datasets.artifact.artifact import Artifact
    from d3hr_datasets.publish.card import PREVIEW, SHEET, write_card

    path = write_card(
        Artifact.load(artifact),
        repo_id,
        preview_ipc=preview_ipc,
        results=results,
        report=report,
        root=root,
        device=device,
    )
    if as_json:
        print_json({"card": str(path), "sheet": str(artifact / SHEET), "preview": str(artifact / PREVIEW)})
    else:
        typer.echo(path)


def publish(
    artifact: FolderArgument,
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The dataset repository.")],
    with_model: Annotated[
        bool, typer.Option("--with-model", help="The diffusion model inside is your own: publish it too.")
    ] = False,
    no_moments: Annotated[
        bool, typer.Option("--no-moments", help="Leave the exact sums behind the statistics out.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, list what would go up, and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put an artifact on the Hub, after checking all of it.

    Prints the line of the registry that pins it. A second time makes no commit. The token is that of
    `hf auth login` or HF_TOKEN.
    """
    from d3hr_datasets.artifact import Artifact, copy_without_moments
    from d3hr_datasets.publish.upload import moments_notice, plan_artifact, publish_artifact, registry_row

    with contextlib.ExitStack() as stack:
        found = Artifact.load(artifact)
        if no_moments:
            plan_artifact(found, with_model=with_model)  # so that what is wrong is said of this folder
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            found = copy_without_moments(found, place / "artifact")
        files = plan_artifact(found, with_model=with_model)
        notice = moments_notice(found)
        if notice:
            typer.echo(f"d3hr: {notice}", err=True)
        if dry_run:
            _list(files, repo_id, as_json)
            return
        published = publish_artifact(
            found, repo_id, with_model=with_model, private=private or None, create_pr=create_pr
        )
        row = registry_row(found, published)
    if as_json:
        listed = [dataclasses.asdict(file) for file in files]
        print_json({**dataclasses.asdict(published), "files": listed, "registry_row": row})
        return
    typer.echo(printable(published.url) if published.changed else "nothing to change", err=True)
    if no_moments:
        typer.echo(
            f"d3hr: if sums were published to {repo_id} before, earlier commits still have them: remove "
            "these commits, or the repository, where that must not be",
            err=True,
        )
    typer.echo(row)


def _list(files: Sequence[PlannedFile], repo_id: str, as_json: bool) -> None:
    total = sum(file.num_bytes for file in files)
    if as_json:
        listed = [dataclasses.asdict(file) for file in files]
        print_json({"repo_id": repo_id, "files": listed, "num_bytes": total})
        return
    for file in files:
        typer.echo(f"{file.num_bytes:>12,}  {file.name}")
    typer.echo(f"{total:>12,}  bytes in {len(files)} files, for {repo_id}", err=True)
