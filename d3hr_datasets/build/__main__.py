"""The command `d3hr build`: labelled images and a diffusion model -> an artifact.

In: arguments. Out: the folder of the artifact, on stdout. `accelerate launch -m d3hr_datasets.build` and
`torchrun -m d3hr_datasets.build` take the same arguments, and share the work between processes.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from d3hr_datasets.io.text import check_text
from d3hr_datasets.terminal.artifact_options import (
    AllowBinOption,
    ClassListOption,
    DecodeGuidanceOption,
    DecodeTimestepOption,
    DeviceOption,
    DtypeOption,
    LicenseOption,
    ModelOption,
    NameOption,
    OutputOption,
    finish,
)
from d3hr_datasets.terminal.group import command_group
from d3hr_datasets.terminal.option_names import option_names
from d3hr_datasets.terminal.output import JsonOption
from d3hr_datasets.version import __version__

# What --reference says itself.
SET_BY_REFERENCE = (
    "steps",
    "guidance_scale",
    "inversion",
    "evaluations_per_step",
    "noise_timestep",
    "latent",
    "modes",
    "decode_guidance_scale",
)


def build(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder with one folder per class, torchvision:NAME[:ROOT] (ROOT: data), or "
            "datasets:NAME (on the Hub, a folder, a Parquet or tar file).",
        ),
    ],
    model: ModelOption,
    output: OutputOption,
    name: NameOption = None,
    split: Annotated[str, typer.Option(help="Split of a torchvision or datasets source.")] = "train",
    download: Annotated[bool, typer.Option("--download", help="Let torchvision download it.")] = False,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read a datasets source without storing it.")
    ] = False,
    image_column: Annotated[str | None, typer.Option(help="Column of images.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of labels.")] = None,
    class_list: ClassListOption = None,
    class_map: Annotated[
        Path | None,
        typer.Option(help="JSON object: class of the source -> label, name or wnid of the model, or null."),
    ] = None,
    class_order: Annotated[
        Literal["match", "same"],
        typer.Option(help="'same': the source's labels are the model's. Otherwise names are matched."),
    ] = "match",
    timesteps: Annotated[
        list[int] | None, typer.Option("--timestep", help="Timestep to keep statistics of; repeat it. [600]")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the whole DDIM grid.")] = 50,
    guidance_scale: Annotated[float, typer.Option(help="Guidance while inverting; 1 is none.")] = 1.0,
    inversion: Annotated[
        Literal["fixed_point", "ddim"],
        typer.Option(help="The more exact inversion, or the paper's, at the same cost."),
    ] = "fixed_point",
    evaluations_per_step: Annotated[
        int, typer.Option(min=1, help="Of the model, in each step of fixed_point.")
    ] = 1,
    noise_timestep: Annotated[
        Literal["source", "target"],
        typer.Option(help="Where a step of ddim evaluates the model; D3HR's code: target."),
    ] = "source",
    latent: Annotated[
        Literal["mean", "sample"], typer.Option(help="Of the VAE's posterior; D3HR's code: sample.")
    ] = "mean",
    seed: Annotated[int, typer.Option(min=0, help="Seed of posterior samples.")] = 0,
    modes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Modes per class; 1 stores none. By default a twentieth of the images of the smallest "
            "class, at most 50; none of a stream, or where a class has fewer than 100 images.",
        ),
    ] = None,
    decode_timestep: DecodeTimestepOption = None,
    decode_guidance_scale: DecodeGuidanceOption = 4.0,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side of the images; a black frame fills up to the model's. By default what the model was "
            "trained on, where it says so, else no frame.",
        ),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of finished chunks, shared by all machines. [OUTPUT.chunks]")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Halved when memory runs out.")] = 256,
    chunk_size: Annotated[int, typer.Option(min=1, help="Images that a killed process loses.")] = 2048,
    readers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 4,
    skip_unreadable: Annotated[
        int, typer.Option(min=0, help="Images that may be left out; they are named in the artifact.")
    ] = 0,
    device: DeviceOption = None,
    dtype: DtypeOption = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile; on a CPU it needs g++.")
    ] = False,
    allow_bin: AllowBinOption = False,
    license_name: LicenseOption = None,
    reference_code: Annotated[
        bool,
        typer.Option(
            "--reference",
            help="Invert and decode as D3HR's code does: docs/reference-differences.md.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build an artifact from labelled images and a diffusion model, and print its folder.

    Goes on where it was interrupted. Under `accelerate launch -m d3hr_datasets.build` all processes share the
    work.
    """
    from d3hr_datasets.artifact.artifact import Artifact
    from d3hr_datasets.artifact.info import MAX_TEXT, ArtifactInfo
    from d3hr_datasets.artifact.metadata import METADATA
    from d3hr_datasets.build.build import build_artifact
    from d3hr_datasets.build.launch import join_processes
    from d3hr_datasets.build.mode_count import choose_num_modes
    from d3hr_datasets.build.model_folder import (
        check_output,
        check_places,
        copy_model,
        image_frame,
        load_model,
        model_classes,
        model_reference,
    )
    from d3hr_datasets.build.reference_import import as_reference
    from d3hr_datasets.classes.matching import match_classes, read_class_map
    from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
    from d3hr_datasets.io.atomic import completed_folder
    from d3hr_datasets.io.paths import expand_user
    from d3hr_datasets.sources.opening import SourceOptions, open_source
    from d3hr_datasets.sources.relabel import relabel

    if license_name is not None:
        check_text("--license", license_name, MAX_TEXT)  # before hours of work
    if reference_code:
        _check_alone(context)
    reference = model_reference(model)
    output = expand_user(output).absolute()
    check_output(output)
    work = output.with_name(f"{output.name}.chunks") if work is None else expand_user(work).absolute()
    check_places(source, output, work)
    processes = join_processes()
    with processes.main_process_first():  # it may download
        opened = open_source(source, SourceOptions(split, download, streaming, image_column, label_column))
    diffusion = load_model(model, device or processes.device, dtype, allow_bin=allow_bin)
    known = model_classes(model, class_list)
    classes, labels = match_classes(
        opened.classes,
        known,
        diffusion.num_classes,
        None if class_map is None else read_class_map(class_map),
        same_order=class_order == "same",
    )
    size, padding, disagreement = image_frame(model, diffusion.sample_size, image_size)
    if disagreement is not None and processes.is_main_process:
        _say(disagreement)
    kept = tuple(timesteps or (600,))
    inverted = InversionConfig(
        timesteps=kept,
        num_inference_steps=steps,
        num_train_timesteps=len(diffusion.scheduler.alphas_cumprod),
        guidance_scale=guidance_scale,
        noise_timestep=noise_timestep,
        latent=latent,
        seed=seed,
        method=inversion,
        evaluations_per_step=evaluations_per_step,
    )
    with option_names(timestep="--decode-timestep", guidance_scale="--decode-guidance-scale"):
        decode = DecodeConfig(
            kept[-1] if decode_timestep is None else decode_timestep, steps, decode_guidance_scale
        )
    info = ArtifactInfo(
        name=output.resolve().name.lower() if name is None else name,
        classes=classes.names,
        wnids=classes.wnids,
        image_size=size,
        image_mode="L" if diffusion.image_channels == 1 else "RGB",
        padding=padding,
        latent_shape=diffusion.latent_shape,
        model=reference,
        inversion=inverted,
        decode=decode,
        counts=(2,) * len(classes.names),  # those found are written
        num_modes=1,
        source=opened.description,
        producer=f"d3hr-datasets {__version__}, d3hr build",
    )
    images = relabel(opened.images, labels)
    if reference_code:
        info = as_reference(info)
    else:
        if modes is None:
            modes, why = choose_num_modes(images, info)
            if processes.is_main_process:
                _say(why)
        info = dataclasses.replace(info, num_modes=modes)
    if compiled:
        diffusion.compile()  # refused, where it is, before anything is written
    is_writer = processes.is_main_process
    with completed_folder(output, METADATA) if is_writer else nullcontext(output) as place:
        if is_writer:
            copy_model(model, diffusion, place)
        build_artifact(
            images,
            diffusion,
            place,
            info,
            work,
            batch_size,
            chunk_size,
            skip_unreadable=skip_unreadable,
            num_readers=readers,
        )
    if is_writer:
        finish(Artifact.load(output), license_name, as_json)
    processes.wait_for_everyone()
    processes.destroy_process_group()


def _check_alone(context: typer.Context) -> None:
    """Refuse options beside --reference that it would overrule."""
    from d3hr_datasets.errors import ConfigError

    given = [name for name in SET_BY_REFERENCE if _is_given(context, name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"--reference sets what {options} would; leave out one of them")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _say(text: str) -> None:
    typer.echo(f"d3hr: {text}", err=True)


def _take_no_options() -> None:
    """Be a group, as `d3hr` is, so that errors are lines here, too."""


if __name__ == "__main__":  # `accelerate launch -m d3hr_datasets.build ...`
    app = command_group("Build an artifact.")
    app.callback()(_take_no_options)
    app.command()(build)
    app(["build", *sys.argv[1:]])
