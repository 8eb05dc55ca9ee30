"""The commands `d3hr train student` and `d3hr train diffusion`.

In: a protocol and images, or settings of a diffusion model. Out: a student's accuracy after the last epoch
and the folder of its run, or the folder of the model, on stdout. Several processes: `accelerate launch -m
d3hr_datasets.cli train ...`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from d3hr_datasets.cli.shared_options import merge_options
from d3hr_datasets.cli.student_options import ProtocolArgument, TrainingArguments
from d3hr_datasets.cli.trained_model import train_and_print
from d3hr_datasets.cli_common import build_options as of_build
from d3hr_datasets.cli_common.output import JsonOption, print_json

train_app = typer.Typer(no_args_is_help=True, help="Train students and diffusion models on images.")


@train_app.callback()
def _group() -> None:
    """Train students and diffusion models on images."""


@merge_options
def student(
    protocol: ProtocolArgument,
    dataset: Annotated[
        str,
        typer.Option(
            help="The real data set, whose test set counts: fashion-mnist, cifar10, ..., or a folder with "
            "train/ and val/, each with one folder per class."
        ),
    ] = "fashion-mnist",
    ipc: Annotated[int, typer.Option(min=0, help="Images per class; 0 for all.")] = 10,
    source: Annotated[
        str | None,
        typer.Option(
            help="What the student sees: default (the distilled set), random_real, whole, modes, search, "
            "moment_matched, curated, independent, vae_gaussians, raw_diffusion, reconstructed, herding, "
            "k_center or medoids."
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Images of anybody's instead: a folder with one folder per class, Parquet, or a .pt file.",
        ),
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(help="Artifact of the distilled set; that of the data set by default.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--student", help="A model of timm, convnet3, ... The protocol's by default."),
    ] = None,
    labels: Annotated[
        Literal["hard", "soft", "stored"] | None, typer.Option(help="The protocol's by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the images and of the training.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs/students"),
    export: Annotated[
        Path | None, typer.Option(help="Write the student there, as a model that timm opens.")
    ] = None,
    *,
    options: TrainingArguments,
    as_json: JsonOption = False,
) -> None:
    """Train a student by a published protocol and test it on real images.

    A run that was interrupted goes on where it stopped; one that is finished is not trained again. Needs the
    extra "train".
    """
    if source is not None and images is not None:
        raise typer.BadParameter("--source and --images both say what the student sees; give one")
    from d3hr_datasets.experiments.own_images import settings_of_images
    from d3hr_datasets.experiments.protocol_files import choose_protocol
    from d3hr_datasets.experiments.student_inputs import run_folder
    from d3hr_datasets.experiments.student_run import run_student
    from d3hr_datasets.students.accelerator import default_accelerator

    given = {
        "source": source,
        "artifact": artifact,
        "student": model,
        "labels": labels,
        "export": None if export is None else str(export),
    }
    changes: dict[str, Any] = {
        **options.settings(dataset),
        **{name: value for name, value in given.items() if value is not None},
        "seed": seed,
        "output": str(output),
    }
    if images is not None:
        own, opened = settings_of_images(images, protocol, dataset, changes)
        changes, ipc = {**changes, **own}, own["ipc"]
        for note in opened.notes:
            typer.echo(note, err=True)
    elif changes.get("source") == "whole":
        ipc = changes["ipc"] = 0
    chosen = choose_protocol(protocol, dataset, ipc, changes)
    settings = chosen.settings()
    accelerator = default_accelerator(settings.mixed_precision)
    if accelerator.is_main_process:
        for note in chosen.notes:
            typer.echo(note, err=True)
    result = run_student(settings, accelerator)
    if not accelerator.is_main_process:
        return
    folder = run_folder(settings, result["inputs"])
    if as_json:
        print_json({**result, "folder": str(folder)})
        return
    typer.echo(
        f"top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} % on {result['num_test_images']} images "
        f"({result['tested_on']}), after {settings.epochs} epochs on {result['num_images']} images in "
        f"{result['seconds']:.0f} s"
    )
    typer.echo(folder)


def _configs(incomplete: str) -> list[str]:
    """Complete the name of a packaged settings file."""
    from d3hr_datasets.training.config_files import config_names

    return [name for name in config_names() if name.startswith(incomplete)]


def diffusion(
    config: Annotated[
        str,
        typer.Argument(
            autocompletion=_configs,
            help="A YAML file of settings, or the name of a packaged one: fashion-mnist, ...",
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value of a setting; repeat it."),
    ] = None,
    download: of_build.DownloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a diffusion model, or an adapter of one, and print its folder.

    A run that was interrupted goes on where it stopped. Needs the extra "adapt".
    """
    from d3hr_datasets.training.config_files import training_settings

    train_and_print(training_settings(config, changes or []), download, as_json)


train_app.command("student")(student)
train_app.command("diffusion")(diffusion)
