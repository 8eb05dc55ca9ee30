"""The command `d3hr adapt`: images of one's own and a diffusion model -> an adapter of it, or a model.

In: arguments. Out: the folder of the adapter, on stdout. Several processes: `accelerate launch -m
d3hr_datasets.cli adapt ...`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from d3hr_datasets.cli.trained_model import train_and_print
from d3hr_datasets.cli_common import build_options as of_build
from d3hr_datasets.cli_common.output import JsonOption


def adapt(
    source: of_build.SourceArgument,
    model: Annotated[
        str,
        typer.Option(
            help="What is adapted: a folder in diffusers' layout, ORG/NAME@COMMIT on the Hub, or "
            "fashion-mnist, the model that ships with this package."
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(help="For a model of prompts: a template, such as 'a photo of a {name}'."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="JSON object instead: class -> prompt, for every class.")
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What guidance leads away from.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run. [the name of the images and '-adapter']")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Train all weights instead, into a model of its own.")
    ] = False,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the adapter's matrices. [16]")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the training. [2000]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a step. [32, or all where there are fewer]")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="At its peak. [1e-3; 1e-4 for a model of prompts, and for all weights]"),
    ] = None,
    image_size: of_build.ImageSizeOption = None,
    split: Annotated[
        Literal["train", "held-out", "train+held-out"],
        typer.Option(help="Of the images; held-out is a fixed sixth."),
    ] = "train+held-out",
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    precision: Annotated[
        Literal["no", "bf16", "fp16"] | None,
        typer.Option(help="Mixed precision. [bf16 on a GPU that has it, else no]"),
    ] = None,
    accumulation: Annotated[
        int, typer.Option(min=1, help="Parts of a batch, one after another: less memory.")
    ] = 1,
    checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute activations twice: less memory.")
    ] = False,
    compiled: of_build.CompileOption = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another setting of a training; repeat it."),
    ] = None,
    download: of_build.DownloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Adapt a diffusion model to labelled images, and print the folder of the adapter.

    The adapter is some MB beside the model, which stays as it is; `d3hr build --adapter` takes it. A run that
    was interrupted goes on where it stopped. Needs the extra "adapt".
    """
    from d3hr_datasets.training.adaption import adaption_settings

    settings = adaption_settings(
        source,
        model,
        output,
        changes or [],
        start="full" if full else "lora",
        prompt=prompt,
        prompts=None if prompts is None else str(prompts),
        negative_prompt=negative_prompt,
        rank=rank,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        image_size=image_size,
        split=split,
        seed=seed,
        mixed_precision=precision,
        gradient_accumulation=accumulation,
        gradient_checkpointing=checkpointing,
        torch_compile=compiled,
        download=download,
    )
    train_and_print(settings, download, as_json)
