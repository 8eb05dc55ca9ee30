"""The commands `d3hr merge` and `d3hr forget`: one artifact of several, or of one without some of its images.

In: artifacts, and images to forget. Out: the folder of a new artifact, on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from d3hr_datasets.cli_common import build_options as of_build
from d3hr_datasets.cli_common.artifact_options import NameOption, print_artifact
from d3hr_datasets.cli_common.output import CpuOffloadOption, JsonOption
from d3hr_datasets.config.defaults import NUM_READERS

NewOption = Annotated[Path, typer.Option(help="A new folder, for the artifact that is made.")]
LikeOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|none|SHARE",
        help="How far variances are drawn towards shared ones. [as in the build, where it is known, or auto]",
    ),
]


def merge(
    parts: Annotated[
        list[str], typer.Argument(metavar="ARTIFACT...", help="Two or more: folders, or ORG/NAME on the Hub.")
    ],
    output: NewOption,
    name: NameOption = None,
    modes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Modes per class, joined from those of the parts. [as many as each part has]"
        ),
    ] = None,
    keep_modes: Annotated[
        bool, typer.Option("--keep-modes", help="Keep the modes of all parts, side by side.")
    ] = False,
    shrinkage: LikeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make one artifact of several, of one model and one way of inverting, and print its folder.

    Its class Gaussians are exactly those of one build of all images, where the parts were built with
    --moments; its modes are joined from those of the parts. Classes of one name are one class.
    """
    from d3hr_datasets.combine import merge_artifacts

    artifact = merge_artifacts(
        parts,
        output,
        name=name,
        num_modes=modes,
        keep_modes=keep_modes,
        shrinkage=_shrinkage(shrinkage),
        notify=_tell,
    )
    print_artifact(artifact, as_json)


def forget(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Built with --moments: its folder.")],
    images: of_build.SourceArgument,
    output: NewOption,
    membership: Annotated[
        Path,
        typer.Option(help="The file that d3hr build --membership, or d3hr forget, wrote for the artifact."),
    ],
    membership_key: Annotated[
        Path | None, typer.Option(help="File of its secret key. [membership.key beside it]")
    ] = None,
    new_membership: Annotated[
        Path | None, typer.Option(help="File for the membership of the new artifact. [OUTPUT.membership]")
    ] = None,
    split: of_build.SplitOption = "train",
    download: of_build.DownloadOption = False,
    streaming: of_build.StreamingOption = False,
    image_column: of_build.ImageColumnOption = None,
    label_column: of_build.LabelColumnOption = None,
    class_map: of_build.ClassMapOption = None,
    class_order: of_build.ClassOrderOption = "match",
    shrinkage: LikeOption = None,
    batch_size: of_build.BatchSizeOption = 64,
    readers: of_build.ReadersOption = NUM_READERS,
    device: of_build.DeviceOption = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Precision; no other than that of the build. [that of the build]"),
    ] = None,
    cpu_offload: CpuOffloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make an artifact of an artifact without some of its images, and print its folder.

    It is that of a build without them, to round-off; modes keep their images. What the diffusion model
    remembers of them is not changed, and whoever has the artifact of before can tell what was taken away.
    """
    import torch

    from d3hr_datasets.combine import ForgetOptions, forget_images
    from d3hr_datasets.sources.opening import SourceOptions

    made = forget_images(
        artifact,
        images,
        output,
        membership=membership,
        key=membership_key,
        new_membership=new_membership,
        options=ForgetOptions(
            SourceOptions(split, download, streaming, image_column, label_column),
            class_map,
            class_order == "same",
            device,
            None if dtype is None else getattr(torch, dtype),
            batch_size,
            readers,
            _shrinkage(shrinkage),
            cpu_offload,
        ),
        notify=_tell,
    )
    print_artifact(made, as_json)


def _tell(sentence: str) -> None:
    typer.echo(f"d3hr: {sentence}", err=True)


def _shrinkage(text: str | None) -> Any:
    return None if text is None else of_build.parse_shrinkage(text)
