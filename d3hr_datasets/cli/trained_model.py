"""What the commands that train diffusion models do with their settings, and what they print.

In: settings. Out: the folder of a model or an adapter, on stdout.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer

from d3hr_datasets.cli_common.output import print_json

if TYPE_CHECKING:
    from d3hr_datasets.training.settings import DiffusionTraining


def train_and_print(settings: DiffusionTraining, download: bool, as_json: bool) -> None:
    """Train in every process that was launched, and print from the first where the result is."""
    from d3hr_datasets.training.diffusion import train_diffusion, training_accelerator

    accelerator = training_accelerator()
    folder = train_diffusion(settings, download, accelerator)
    if accelerator.is_main_process:
        if as_json:
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            print_json({"folder": str(folder), "bytes": size, "settings": dataclasses.asdict(settings)})
        else:
            typer.echo(folder)
    accelerator.end_training()
