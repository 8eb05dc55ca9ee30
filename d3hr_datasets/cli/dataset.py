"""The commands `d3hr materialize` and `d3hr export`: generate images, and write them for other libraries.

In: which set is meant. Out: a folder, on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from d3hr_datasets.cli.dataset_options import (
    ArtifactOption,
    ClassesOption,
    DeviceOption,
    DtypeOption,
    GuidanceOption,
    IpcOption,
    NameOption,
    NestedOption,
    SamplingOption,
    SeedOption,
    SubsetOption,
    TimestepOption,
    describe,
    make_dataset,
)
from d3hr_datasets.terminal.output import JsonOption, RootOption, print_json

CompileOption = Annotated[
    bool, typer.Option("--compile", help="Use torch.compile, which takes a minute: for large sets.")
]


def materialize(
    artifact: ArtifactOption = None,
    name: NameOption = None,
    ipc: IpcOption = 10,
    seed: SeedOption = 0,
    root: RootOption = None,
    classes: ClassesOption = None,
    subset: SubsetOption = None,
    nested: NestedOption = False,
    sampling: SamplingOption = None,
    timestep: TimestepOption = None,
    guidance_scale: GuidanceOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in the model at a time.")] = 64,
    compiled: CompileOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate a set and print its folder.

    Images that are cached and sound are kept, so that it goes on where it was interrupted. Under `torchrun`
    each process generates its share of the classes.
    """
    dataset = make_dataset(
        artifact,
        name,
        ipc,
        seed,
        root,
        classes,
        subset,
        nested,
        device,
        dtype,
        sampling,
        timestep,
        guidance_scale,
    )
    folder = dataset.materialize(batch_size, torch_compile=compiled)
    if as_json:
        print_json({"folder": str(folder), **describe(dataset)})
    else:
        typer.echo(folder)


def export(
    output: Annotated[Path, typer.Option(help="Folder to make; it must be missing or empty.")],
    form: Annotated[
        Literal["image-folder", "parquet", "webdataset"], typer.Option("--format", help="What to write.")
    ],
    artifact: ArtifactOption = None,
    name: NameOption = None,
    ipc: IpcOption = 10,
    seed: SeedOption = 0,
    root: RootOption = None,
    classes: ClassesOption = None,
    subset: SubsetOption = None,
    nested: NestedOption = False,
    sampling: SamplingOption = None,
    timestep: TimestepOption = None,
    guidance_scale: GuidanceOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = "float32",
    shard_size: Annotated[int, typer.Option(min=1, help="Images per shard of webdataset.")] = 10_000,
    as_json: JsonOption = False,
) -> None:
    """Write a set for other libraries.

    Images that are not cached are generated first. Prints the folder of the export.
    """
    from d3hr_datasets.dataset.export import export_image_folder, export_parquet, export_webdataset

    dataset = make_dataset(
        artifact,
        name,
        ipc,
        seed,
        root,
        classes,
        subset,
        nested,
        device,
        dtype,
        sampling,
        timestep,
        guidance_scale,
    )
    if form == "image-folder":
        export_image_folder(dataset, output)
    elif form == "parquet":
        export_parquet(dataset, output)
    else:
        export_webdataset(dataset, output, shard_size)
    if as_json:
        print_json({"folder": str(output), "format": form, **describe(dataset)})
    else:
        typer.echo(output)
