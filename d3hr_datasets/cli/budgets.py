"""The command `d3hr budgets`: an artifact and rules for sets of few images per class -> a copy that has them.

In: an artifact and a JSON file. Out: the folder of the copy, on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d3hr_datasets.cli.dataset_options import WHERE
from d3hr_datasets.cli_common.artifact_options import print_artifact, say_card_is_old
from d3hr_datasets.cli_common.output import JsonOption


def budgets(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help=f"{WHERE}.")],
    rules: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.json",
            help='JSON list of rules: [{"max_ipc": 1, "decode": {...}, "sampling": {...}}, ...], from the '
            "smallest max_ipc. What a rule leaves out is as for all other sets. [] takes rules away.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to make; it must be missing or empty.")],
    as_json: JsonOption = False,
) -> None:
    """Copy an artifact with other settings for sets of few images per class, and print the copy's folder.

    A rule holds for sets of at most max_ipc images per class that are not nested. The artifact stays.
    """
    from d3hr_datasets.artifact.artifact import Artifact
    from d3hr_datasets.artifact.budgets import copy_with_budgets
    from d3hr_datasets.io.untrusted_files import read_json_argument

    found = Artifact.from_pretrained(artifact)
    made = copy_with_budgets(found, read_json_argument(rules, "file of budgets"), output)
    say_card_is_old(made, artifact, output)
    print_artifact(made, as_json)
