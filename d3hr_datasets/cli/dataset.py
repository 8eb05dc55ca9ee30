"""The commands `d3hr materialize` and `d3hr export`: generate images, and write them for other libraries.

In: which set is meant. Out: a folder, on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from d3hr_datasets.cli.dataset_options import SetArguments, describe, make_dataset
from d3hr_datasets.cli.shared_options import merge_options
from d3hr_datasets.cli_common.output import EstimateOption, JsonOption, print_estimate, print_json
from d3hr_datasets.config.defaults import BATCH_CLASSES, BATCH_SIZE
from d3hr_datasets.dataset.options import SHARD_SIZE

CompileOption = Annotated[
    bool, typer.Option("--compile", help="Use torch.compile, which takes a minute: for large sets.")
]


@merge_options
def materialize(
    options: SetArguments,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Images in the model at a time, of at most {BATCH_CLASSES} classes; {BATCH_SIZE}, on CUDA "
            "what memory holds.",
        ),
    ] = None,
    compiled: CompileOption = False,
    estimate: EstimateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate a set and print its folder.

    Images that are cached and sound are kept, so that it goes on where it was interrupted. Says on stderr how
    many images are made, how many a second, and how long the rest takes. Under `torchrun` each process
    generates its share of the classes.
    """
    dataset = make_dataset(options)
    if estimate:
        from d3hr_datasets.dataset.estimate import estimate_set
        from d3hr_datasets.processes import process_share

        found = estimate_set(dataset, batch_size, compiled)
        if process_share()[0] == 0:
            print_estimate(found, as_json)
        return
    folder = dataset.materialize(batch_size, torch_compile=compiled)
    if as_json:
        print_json({"folder": str(folder), **describe(dataset)})
    else:
        typer.echo(folder)


@merge_options
def export(
    output: Annotated[Path, typer.Option(help="Folder to make; it must be missing or empty.")],
    form: Annotated[
        Literal["image-folder", "parquet", "webdataset"], typer.Option("--format", help="What to write.")
    ],
    options: SetArguments,
    shard_size: Annotated[int, typer.Option(min=1, help="Images per shard of webdataset.")] = SHARD_SIZE,
    as_json: JsonOption = False,
) -> None:
    """Write a set for other libraries.

    Images that are not cached are generated first. Prints the folder of the export.
    """
    from d3hr_datasets.dataset.export import export_image_folder, export_parquet, export_webdataset

    dataset = make_dataset(options)
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
