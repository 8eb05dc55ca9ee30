"""The command `d3hr evaluate`: a distilled set of anybody's -> what students learn from it.

In: arguments. Out: the table, on stdout, and files with it.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from d3hr_datasets.cli.dataset_options import DEFAULT_NAME
from d3hr_datasets.cli.shared_options import merge_options
from d3hr_datasets.cli.student_options import ProtocolOption, TrainingArguments
from d3hr_datasets.cli_common.output import JsonOption, print_json


@merge_options
def evaluate(
    images: Annotated[
        str,
        typer.Argument(
            metavar="[SET]",
            help="An artifact (a folder, ORG/NAME, or the name of a data set), a folder with one folder per "
            "class, Parquet (a folder, a file, hfds/FOLDER), or a .pt file of tensors.",
        ),
    ] = DEFAULT_NAME,
    real: Annotated[
        str | None,
        typer.Option(
            help="The real data set: a name, or a folder with train/ and val/. That of an artifact, else "
            f"{DEFAULT_NAME}, by default."
        ),
    ] = None,
    protocol: ProtocolOption = "dc",
    students: Annotated[
        list[str] | None,
        typer.Option("--student", help="A model to train; repeat it. The protocol's by default."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="hard, soft or stored; repeat it. The protocol's by default."),
    ] = None,
    ipc: Annotated[int, typer.Option(min=1, help="Images per class of an artifact.")] = 10,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="How an artifact makes its images: default, curated, modes, moment_matched, search, "
            "independent, vae_gaussians, raw_diffusion.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Students of each row.")] = 3,
    whole: Annotated[bool, typer.Option("--whole", help="Train on the whole real set, too.")] = False,
    whole_epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over it; by default as many views as of the distilled set."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Train without augmentation, too, which ARS needs.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Students at a time; one a core, or on a GPU one.")
    ] = None,
    class_order: Annotated[
        str,
        typer.Option(
            metavar="name|same",
            help="Find the real classes by the names of the set's, or take them in the same order.",
        ),
    ] = "name",
    normalized: Annotated[
        bool,
        typer.Option(
            "--normalized", help="A .pt file holds images normalised by the protocol's mean and std."
        ),
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder of the table and of all runs.")] = Path(
        "runs/evaluation"
    ),
    *,
    options: TrainingArguments,
    as_json: JsonOption = False,
) -> None:
    """Say what a set of images is worth: students trained on it beside students of random real images.

    Prints a table with mean and standard deviation over seeds, and writes evaluation.json, evaluation.md and
    evaluation.png. Goes on where it was interrupted. Needs the extra "train".
    """
    from d3hr_datasets.experiments import evaluated_set
    from d3hr_datasets.experiments.evaluation import EvaluationSettings, evaluate_set

    for name in labels or ():
        if name not in {"hard", "soft", "stored"}:
            raise typer.BadParameter(f"--labels must be hard, soft or stored, not {name!r}")
    if output.exists() and not output.is_dir():
        raise typer.BadParameter(f"--output {output} is a file; give a folder")
    settings = {"output": str(output / "students"), "class_order": class_order, "normalized": normalized}
    if evaluated_set.is_artifact(images):
        found = evaluated_set.artifact_to_evaluate(images, real, ipc, source or "default")
        changes = {**options.settings(found.dataset), **settings}
    else:
        if source is not None:
            raise typer.BadParameter(f"--source says how an artifact makes images, and {images} is none")
        dataset = real or DEFAULT_NAME
        changes = {**options.settings(dataset), **settings}
        found = evaluated_set.images_to_evaluate(images, protocol, dataset, changes)
    for note in found.notes:
        typer.echo(note, err=True)
    how = EvaluationSettings(
        protocol=protocol,
        students=tuple(students or ()),
        labels=tuple(labels or ()),
        seeds=seeds,
        whole=whole,
        whole_epochs=whole_epochs,
        plain=plain,
        changes=changes,
    )
    command = shlex.join(["d3hr", *sys.argv[1:]])
    document = evaluate_set(found, how, str(output), command, jobs=jobs)
    if as_json:
        print_json(document)
    else:
        typer.echo((output / "evaluation.md").read_text(encoding="utf-8"), nl=False)
