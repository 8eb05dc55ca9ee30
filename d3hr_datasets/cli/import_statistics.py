"""The command `d3hr import`: statistics in the reference code's format -> an artifact.

In: a folder of files and a diffusion model. Out: the folder of the artifact, on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d3hr_datasets.build.build_settings import BuildSettings
from d3hr_datasets.build.given_times import PAPERS_TIMESTEP
from d3hr_datasets.cli_common.artifact_options import (
    AllowBinOption,
    ClassListOption,
    DecodeGuidanceOption,
    DecodeTimestepOption,
    LicenseOption,
    ModelOption,
    NameOption,
    OutputOption,
    print_artifact,
)
from d3hr_datasets.cli_common.output import JsonOption
from d3hr_datasets.cli_common.times import parse_time
from d3hr_datasets.version import __version__

DEFAULT = BuildSettings()


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
        list[float] | None,
        typer.Option(
            "--timestep",
            parser=parse_time,
            metavar="TIME",
            help="Timestep to keep, 480 to 760; repeat it. [600]",
        ),
    ] = None,
    decode_timestep: DecodeTimestepOption = None,
    decode_guidance_scale: DecodeGuidanceOption = DEFAULT.decode_guidance_scale,
    license_name: LicenseOption = None,
    allow_bin: AllowBinOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make an artifact of statistics in the reference code's format, and print its folder."""
    from d3hr_datasets.build.reference_import import import_artifact
    from d3hr_datasets.io.untrusted_files import read_json_argument

    settings = BuildSettings(
        timesteps=tuple(timesteps or (PAPERS_TIMESTEP,)),
        decode_timestep=decode_timestep,
        decode_guidance_scale=decode_guidance_scale,
        name=name,
        license_name=license_name,
        producer=f"d3hr-datasets {__version__}, d3hr import",
    )
    number = int(counts) if counts.isdecimal() else read_json_argument(counts, "numbers of images")
    artifact = import_artifact(folder, model, output, number, settings, class_list, allow_bin)
    print_artifact(artifact, as_json)
