"""The `d3hr` command: look at artifacts, generate, keep and export their images.

In: arguments. Out: data on stdout, everything else on stderr. Exit codes: 0, 1 (failed), 2 (usage), 130
(interrupted). What takes long to import is imported by the commands that use it, so that help and shell
completion answer at once.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from d3hr_datasets import __version__
from d3hr_datasets.cli_build import build
from d3hr_datasets.cli_cache import JsonOption, RootOption, cache_app, format_bytes, print_json
from d3hr_datasets.cli_dataset import (
    DEFAULT_NAME,
    WHERE,
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
from d3hr_datasets.cli_errors import error_line
from d3hr_datasets.cli_import import import_statistics
from d3hr_datasets.cli_publish import add_publish_commands
from d3hr_datasets.cli_report import report
from d3hr_datasets.errors import D3HRError
from d3hr_datasets.text import printable

if TYPE_CHECKING:
    from d3hr_datasets.artifact import Artifact


class ErrorsAsLines(TyperGroup):
    """A group of commands that prints an error of this library as one line and exits with 1.

    What the library says of its arguments names the options of the command that ran.
    """

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run with outputs that show the number of a letter which their encoding does not have."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*arguments, **options)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command."""
        try:
            return super().invoke(ctx)
        except D3HRError as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            typer.echo(f"d3hr: {printable(error_line(error, command))}", err=True)
            raise typer.Exit(1) from error
        except OSError as error:  # of the system: a full disk, a place that cannot be written
            if isinstance(error, BrokenPipeError):
                raise
            typer.echo(
                f"d3hr: {printable(error)}. Free some space, or give a place that can be written", err=True
            )
            raise typer.Exit(1) from error


app = typer.Typer(
    name="d3hr",
    cls=ErrorsAsLines,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Distilled image data sets: look at artifacts, generate their images, keep and export them.",
)
app.add_typer(cache_app, name="cache")
app.command()(build)
app.command("import")(import_statistics)
app.command()(report)
add_publish_commands(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"d3hr {__version__}")
        raise typer.Exit


ArtifactArgument = Annotated[
    str | None,
    typer.Argument(metavar="ARTIFACT", help=f"{WHERE}; that of {DEFAULT_NAME} by default."),
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Use torch.compile, which takes a minute: for large sets.")
]


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""


@app.command()
def info(artifact: ArtifactArgument = None, as_json: JsonOption = False) -> None:
    """Show what an artifact describes. Reads no statistics and no model."""
    found = _load_artifact(artifact)
    values = found.info.to_dict()
    summary = {
        "folder": str(found.folder),
        "fingerprint": found.fingerprint,
        "license": found.info.source.get("license"),
        "num_bytes": sum(path.stat().st_size for path in found.folder.rglob("*") if path.is_file()),
    }
    if as_json:
        print_json({**values, **summary})
        return
    model, decode = found.info.model, found.info.decode
    classes = found.info.classes
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    latents = " x ".join(map(str, found.info.latent_shape))
    rows = {
        "name": found.info.name,
        "folder": summary["folder"],
        "fingerprint": summary["fingerprint"],
        "classes": f"{len(classes)} ({shown})",
        "built from": f"{sum(found.info.counts)} images",
        "images": f"{found.info.image_size} x {found.info.image_size}, {found.info.image_mode}",
        "latents": f"{latents} at timesteps {', '.join(map(str, found.info.inversion.timesteps))}",
        "decoding": f"from timestep {decode.timestep} on a grid of {decode.num_inference_steps} steps, "
        f"guidance {decode.guidance_scale:g}",
        "model": f"{model.path}/ inside the artifact"
        if model.path
        else f"{model.repo_id} at revision {model.revision}",
        "licence": str(summary["license"] or "not given"),
        "size": format_bytes(int(summary["num_bytes"] or 0)),
    }
    for key, value in rows.items():
        typer.echo(f"{key:<12} {printable(value)}")


@app.command()
def verify(artifact: ArtifactArgument = None, as_json: JsonOption = False) -> None:
    """Check every file of an artifact. Exits with 1 if one is damaged."""
    found = _load_artifact(artifact)
    result = {"folder": str(found.folder), "fingerprint": found.fingerprint, "num_files": len(found.sha256)}
    try:
        found.verify()
    except D3HRError as error:
        if as_json:
            print_json({**result, "sound": False, "error": str(error)})
        raise
    if as_json:
        print_json({**result, "sound": True, "error": None})
    else:
        typer.echo(f"{found.folder}: {len(found.sha256)} files are sound ({found.fingerprint})")


@app.command()
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
        artifact, name, ipc, seed, root, classes, subset, nested, device, dtype,
        sampling, timestep, guidance_scale,
    )  # fmt: skip
    folder = dataset.materialize(batch_size, torch_compile=compiled)
    if as_json:
        print_json({"folder": str(folder), **describe(dataset)})
    else:
        typer.echo(folder)


@app.command()
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
    from d3hr_datasets.export import export_image_folder, export_parquet, export_webdataset

    dataset = make_dataset(
        artifact, name, ipc, seed, root, classes, subset, nested, device, dtype,
        sampling, timestep, guidance_scale,
    )  # fmt: skip
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


def _load_artifact(where: str | None) -> Artifact:
    from d3hr_datasets.artifact import Artifact
    from d3hr_datasets.registry import registered_artifact

    return Artifact.from_pretrained(registered_artifact(DEFAULT_NAME) if where is None else where)
