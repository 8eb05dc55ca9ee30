"""The command `d3hr report`: an artifact -> a page that shows what it is worth.

In: an artifact and, if wished, real images. Out: the page's path on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d3hr_datasets.cli.dataset_options import (
    WHERE,
    SamplingOption,
    SeedOption,
    SetArguments,
    make_dataset,
)
from d3hr_datasets.cli_common.output import JsonOption, RootOption


def report(
    artifact: Annotated[str, typer.Argument(help=f"{WHERE}.")],
    output: Annotated[Path, typer.Option(help="Folder to make; it must be missing or empty.")],
    images: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Training images, for normality, projections and near copies: a folder with one folder per "
            "class, torchvision:NAME[:ROOT], or datasets:NAME, as `d3hr build` takes them.",
        ),
    ] = None,
    images_per_class: Annotated[
        int, typer.Option(min=2, help="Real images of each class that are inverted.")
    ] = 100,
    held_out: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Real images that the artifact was not built from, to compare near copies with: a folder, "
            "or torchvision:NAME[:ROOT] or datasets:NAME, whose split 'test' is taken.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Look for near copies in the features of this teacher, too: embedded:fashion-mnist, "
            "local-dir:FOLDER, or a name of timm. In pixels only by default."
        ),
    ] = None,
    ipc: Annotated[int, typer.Option(min=1, help="Generated images per class.")] = 10,
    seed: SeedOption = 0,
    root: RootOption = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--classes", metavar="CLASS", help="A class to show; repeat it. All by default."),
    ] = None,
    sampling: SamplingOption = None,
    device: Annotated[
        str | None, typer.Option(help="Where to run the model; CUDA if there is one, else MPS, else the CPU.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a page about an artifact: images, normality, near copies, samplers, sizes. Prints its path.

    The folder also holds its pictures as PNG files and its numbers as report.json. Needs
    the libraries of the extra 'report': matplotlib, scikit-learn and scipy.
    """
    from d3hr_datasets.report.report import NUMBERS, write_report

    given = SetArguments(artifact, None, ipc, seed, root, classes, sampling=sampling, device=device)
    dataset = make_dataset(given)
    page = write_report(dataset, output, images, images_per_class, held_out=held_out, teacher=teacher)
    typer.echo((page.parent / NUMBERS).read_text(encoding="utf-8").rstrip() if as_json else page)
