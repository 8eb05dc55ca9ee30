"""The command `d3hr learn`: an artifact and real images -> the artifact with learned means of modes.

In: arguments. Out: the folder of the new artifact, on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d3hr_datasets.cli.dataset_options import WHERE, DeviceOption
from d3hr_datasets.cli_common.output import JsonOption, print_json
from d3hr_datasets.config.defaults import BATCH_SIZE


def learn(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help=f"{WHERE}.")],
    images: Annotated[
        str,
        typer.Option(metavar="SOURCE", help="Real images of its classes, as d3hr build takes them."),
    ],
    output: Annotated[Path, typer.Option(help="Folder to make; it must be missing or empty.")],
    ipc: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Images per class of groups to match; repeat it. [1, 10]",
        ),
    ] = None,
    iterations: Annotated[
        int, typer.Option(min=1, help="Steps, each with another untrained network.")
    ] = 1000,
    max_shift: Annotated[
        float,
        typer.Option(min=0, help="How far each element of a mean may go, in standard deviations of a mode."),
    ] = 0.5,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Of Adam, in standard deviations of a mode; it falls to zero.")
    ] = 0.01,
    num_images: Annotated[
        int, typer.Option(min=1, help="Real images of each class that are kept in memory.")
    ] = 500,
    real_batch: Annotated[int, typer.Option(min=1, help="Of these, how many a step looks at.")] = 64,
    width: Annotated[int, typer.Option(min=1, help="Channels of the untrained networks.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 0,
    device: DeviceOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in the model at a time.")] = BATCH_SIZE,
    as_json: JsonOption = False,
) -> None:
    """Move the means of modes by distribution matching, and print the folder of the new artifact.

    Its groups are nearer to the real images in features of untrained networks. What students gain is not
    measured yet. ARTIFACT stays as it is: keep it, since there is no way back, and images are forgotten in it
    alone. Needs the extra "train".
    """
    from d3hr_datasets.curation import LearningSettings, learn_artifact

    settings = LearningSettings(
        ipc=tuple(ipc) if ipc else None,
        iterations=iterations,
        max_shift=max_shift,
        learning_rate=learning_rate,
        num_images=num_images,
        real_batch=real_batch,
        width=width,
        seed=seed,
    )
    made = learn_artifact(artifact, output, images, settings, batch_size=batch_size, device=device)
    if as_json and made.info.learned is not None:
        learned = made.info.learned.to_dict()
        print_json({"folder": str(made.folder), "fingerprint": made.fingerprint, "learned": learned})
    else:
        typer.echo(made.folder)
