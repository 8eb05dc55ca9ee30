"""The command `d3hr import`: statistics in the reference code's format -> an artifact.

In: a folder of files and a diffusion model. Out: the folder of the artifact, on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d3hr_datasets.io.text import check_text
from d3hr_datasets.terminal.artifact_options import (
    AllowBinOption,
    ClassListOption,
    DecodeGuidanceOption,
    DecodeTimestepOption,
    LicenseOption,
    ModelOption,
    NameOption,
    OutputOption,
    finish,
)
from d3hr_datasets.terminal.option_names import option_names
from d3hr_datasets.terminal.output import JsonOption
from d3hr_datasets.version import __version__


def import_statistics(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds WNID.pt for each class.")],
    model: ModelOption,
    output: OutputOption,
    counts: Annotated[
        str, typer.Option(help="Images behind each class: a number, or a JSON object by WordNet ID or name.")
    ],
    class_list: ClassListOption = None,
    name: NameOption = None,
    timesteps: Annotated[
        list[int] | None, typer.Option("--timestep", help="Timestep to keep, 480 to 760; repeat it. [600]")
    ] = None,
    decode_timestep: DecodeTimestepOption = None,
    decode_guidance_scale: DecodeGuidanceOption = 4.0,
    license_name: LicenseOption = None,
    allow_bin: AllowBinOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make an artifact of statistics in the reference code's format, and print its folder."""
    from d3hr_datasets.artifact.artifact import Artifact
    from d3hr_datasets.artifact.info import MAX_TEXT, ArtifactInfo
    from d3hr_datasets.artifact.metadata import METADATA
    from d3hr_datasets.artifact.model import check_fits
    from d3hr_datasets.build import reference_import as importing
    from d3hr_datasets.build.model_folder import (
        check_output,
        copy_model,
        image_frame,
        load_model,
        model_classes,
        model_reference,
    )
    from d3hr_datasets.classes.matching import read_json
    from d3hr_datasets.config.settings import DecodeConfig
    from d3hr_datasets.errors import ConfigError
    from d3hr_datasets.io.atomic import completed_folder
    from d3hr_datasets.io.paths import expand_user

    if license_name is not None:
        check_text("--license", license_name, MAX_TEXT)  # before hours of work
    reference = model_reference(model)
    output = expand_user(output)
    check_output(output)
    diffusion = load_model(model, "cpu", "float32", allow_bin=allow_bin)
    classes = model_classes(model, class_list)
    if classes is None:
        raise ConfigError("nothing says which classes the model knows; give --class-list")
    kept = tuple(timesteps or (600,))
    inversion = importing.imported_inversion(kept, len(diffusion.scheduler.alphas_cumprod))
    with option_names(timestep="--decode-timestep", guidance_scale="--decode-guidance-scale"):
        decode = DecodeConfig(
            kept[-1] if decode_timestep is None else decode_timestep,
            inversion.num_inference_steps,
            decode_guidance_scale,
        )
    size, padding, _ = image_frame(model, diffusion.sample_size)
    number = int(counts) if counts.isdecimal() else read_json(counts, "numbers of images")
    info = ArtifactInfo(
        name=output.resolve().name.lower() if name is None else name,
        classes=classes.names,
        wnids=classes.wnids,
        image_size=size,
        image_mode="L" if diffusion.image_channels == 1 else "RGB",
        padding=padding,
        latent_shape=diffusion.latent_shape,
        model=reference,
        inversion=inversion,
        decode=decode,
        counts=importing.image_counts(number, classes),
        source={"name": folder.resolve().name, "imported": "statistics in the format of D3HR's code"},
        producer=f"d3hr-datasets {__version__}, d3hr import",
    )
    check_fits(diffusion, info)
    with completed_folder(output, METADATA) as place:
        copy_model(model, diffusion, place)
        importing.import_statistics(folder, place, info)
    finish(Artifact.load(output), license_name, as_json)
