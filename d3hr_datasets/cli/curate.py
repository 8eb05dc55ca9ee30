"""The command `d3hr curate`: an artifact and a teacher -> the artifact with an order of images of each class.

In: arguments. Out: the folder of the new artifact, on stdout.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from d3hr_datasets.cli.dataset_options import WHERE, DeviceOption, GuidanceOption, TimestepOption
from d3hr_datasets.cli_common.artifact_options import say_card_is_old
from d3hr_datasets.cli_common.output import JsonOption, print_json
from d3hr_datasets.config.defaults import BATCH_SIZE


def curate(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help=f"{WHERE}.")],
    teacher: Annotated[
        str,
        typer.Option(
            help="A classifier of its classes: embedded:fashion-mnist, local-dir:FOLDER, hf-hub:ORG/NAME, or "
            "a model of timm."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to make; it must be missing or empty.")],
    images: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Real images that the order should stand for, as d3hr build takes them. By default all "
            "candidates.",
        ),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, help="Images of each class to make and choose from.")
    ] = 300,
    keep: Annotated[int, typer.Option(min=1, help="Images of each class to put in order.")] = 200,
    method: Annotated[
        Literal["herding", "facility_location", "random"], typer.Option(help="How they are put in order.")
    ] = "facility_location",
    mode_spread: Annotated[
        float | None, typer.Option(help="Factor on the standard deviation within modes. [1]")
    ] = None,
    difficulty_weight: Annotated[
        float, typer.Option(min=0, help="How much images are preferred that are easy for the teacher.")
    ] = 0.0,
    difficulty_spread: Annotated[
        float,
        typer.Option(
            min=0, help="How much it counts that easy and hard images are as frequent as they should."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the candidates.")] = 0,
    timestep: TimestepOption = None,
    guidance_scale: GuidanceOption = None,
    device: DeviceOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in the model at a time.")] = BATCH_SIZE,
    as_json: JsonOption = False,
) -> None:
    """Choose the best images of each class in a teacher's features, and print the folder of the new artifact.

    Whoever has it makes them with `--sampling curated`, for any number of images per class up to --keep,
    without the teacher. ARTIFACT stays as it is. Needs the extra "train".
    """
    from d3hr_datasets.artifact.artifact import Artifact
    from d3hr_datasets.curation import CurationSettings, curate_artifact

    found = Artifact.from_pretrained(artifact)
    given: dict[str, Any] = {"timestep": timestep, "guidance_scale": guidance_scale}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = CurationSettings(
        num_candidates=candidates,
        num_kept=keep,
        method=method,
        seed=seed,
        mode_spread=mode_spread,
        difficulty_weight=difficulty_weight,
        difficulty_spread=difficulty_spread,
        decode=dataclasses.replace(found.info.decode, **changes),
    )
    made = curate_artifact(
        found, output, teacher, settings, images=images, batch_size=batch_size, device=device
    )
    say_card_is_old(made, artifact, output)
    if as_json and made.info.curation is not None:
        order = {"fingerprint": made.fingerprint, "order": made.order_fingerprint}
        print_json({"folder": str(made.folder), **order, "curation": made.info.curation.to_dict()})
    else:
        typer.echo(made.folder)
