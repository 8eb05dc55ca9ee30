"""What the commands that make artifacts share: options, and what they print.

In: the arguments that `d3hr build` and `d3hr import` both take. Out: the folder of the artifact, on stdout.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from d3hr_datasets.terminal.output import print_json

if TYPE_CHECKING:
    from d3hr_datasets.artifact.artifact import Artifact

ModelOption = Annotated[
    str,
    typer.Option(help="Diffusion model: a folder in diffusers' layout, or ORG/NAME@COMMIT on the Hub."),
]
OutputOption = Annotated[Path, typer.Option(help="Folder of the artifact.")]
NameOption = Annotated[
    str | None, typer.Option(help="Name of the data set, by default that of the output folder.")
]
ClassListOption = Annotated[
    str | None,
    typer.Option(
        "--class-list",
        help="The model's classes in the order of its labels: imagenet, cifar10, ..., or a JSON file. By "
        "default the label map of the model.",
    ),
]
DeviceOption = Annotated[str | None, typer.Option(help="As in PyTorch; by default a GPU of this process.")]
DtypeOption = Annotated[
    Literal["float32", "bfloat16", "float16"], typer.Option(help="Precision of the model.")
]
LicenseOption = Annotated[str | None, typer.Option("--license", help="Licence of the images.")]
AllowBinOption = Annotated[
    bool, typer.Option("--allow-bin", help="Also load a model folder's .bin weights, with weights_only.")
]
DecodeTimestepOption = Annotated[
    int | None, typer.Option(help="Timestep to decode from, one that is kept. [the last given]")
]
DecodeGuidanceOption = Annotated[float, typer.Option(help="Guidance while decoding.")]


def finish(artifact: Artifact, license_name: str | None, as_json: bool) -> None:
    """Note the licence, which is no part of what names the chunks, and print the folder."""
    from d3hr_datasets.artifact.artifact import Artifact

    if license_name is not None:
        source = {**artifact.info.source, "license": license_name}
        Artifact(artifact.folder, dataclasses.replace(artifact.info, source=source), {}).write_metadata()
        artifact = Artifact.load(artifact.folder)
    if as_json:
        print_json(
            {
                "folder": str(artifact.folder),
                "fingerprint": artifact.fingerprint,
                "counts": list(artifact.info.counts),
                "unreadable": artifact.info.source.get("unreadable", []),
            }
        )
    else:
        typer.echo(artifact.folder)
