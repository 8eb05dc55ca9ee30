"""What the commands that make artifacts share: options, and what they print.

In: the arguments that `d3hr build` and `d3hr import` both take. Out: the folder of the artifact, on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from d3hr_datasets.cli_common.output import print_json
from d3hr_datasets.cli_common.times import parse_time
from d3hr_datasets.config.defaults import DECODE_STEPS

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
LicenseOption = Annotated[str | None, typer.Option("--license", help="Licence of the images.")]
AllowBinOption = Annotated[
    bool, typer.Option("--allow-bin", help="Also load a model folder's .bin weights, with weights_only.")
]
DecodeTimestepOption = Annotated[
    float | None,
    typer.Option(
        parser=parse_time, metavar="TIME", help="Time to decode from, one that is kept. [the last given]"
    ),
]
DecodeGuidanceOption = Annotated[float, typer.Option(help="Guidance while decoding.")]
DecodeSolverOption = Annotated[
    Literal["ddim", "dpm++2m", "unipc"] | None,
    typer.Option(
        help="Solver of decoding; the last two are of second order, for few steps. By default dpm++2m, and "
        "ddim on the grid."
    ),
]
DecodeNumStepsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Steps from the time to decode from, instead of those of the grid: --steps. By default "
        f"{DECODE_STEPS} where nothing is said of the grid.",
    ),
]
DecodeSpacingOption = Annotated[
    Literal["uniform", "quadratic", "cubic", "logsnr"] | None,
    typer.Option(help="How --decode-num-steps are spaced; quadratic by default."),
]
DecodeIntervalOption = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help="Times between which guidance is applied; everywhere by default."),
]


def print_artifact(artifact: Artifact, as_json: bool) -> None:
    """Print where an artifact is, or as JSON what was made."""
    if not as_json:
        typer.echo(artifact.folder)
        return
    print_json(
        {
            "folder": str(artifact.folder),
            "fingerprint": artifact.fingerprint,
            "counts": list(artifact.info.counts),
            "unreadable": artifact.info.source.get("unreadable", []),
        }
    )


def say_card_is_old(copy: Artifact, artifact: str, folder: Path) -> None:
    """Say on stderr, where a changed copy of an artifact has a card, that it describes the other one."""
    from d3hr_datasets.artifact.facts import CARD

    if CARD in copy.sha256:
        typer.echo(f"the card is that of {artifact}; `d3hr card {folder}` writes it anew", err=True)
