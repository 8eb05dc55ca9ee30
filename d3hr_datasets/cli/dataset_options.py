"""The options that say which set of images is meant, as `d3hr materialize` and `d3hr export` take them.

In: arguments. Out: the data set.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer

from d3hr_datasets.cli_common.output import CpuOffloadOption, RootOption
from d3hr_datasets.cli_common.times import parse_time

if TYPE_CHECKING:
    from d3hr_datasets.config.settings import DecodeConfig
    from d3hr_datasets.dataset.dataset import D3HRDataset
    from d3hr_datasets.dataset.options import SetOptions

DEFAULT_NAME = "fashion-mnist"
WHERE = "Folder of an artifact, or ORG/NAME[@REVISION] on the Hub"


def _names(incomplete: str) -> list[str]:
    """Complete the name of a data set."""
    from d3hr_datasets.dataset.artifact_registry import REGISTRY

    return [name for name in REGISTRY if name.startswith(incomplete)]


def _methods(incomplete: str) -> list[str]:
    """Complete the name of a sampler."""
    from d3hr_datasets.config.settings import GroupSamplingMethod

    return [method for method in get_args(GroupSamplingMethod) if method.startswith(incomplete)]


SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the images.")]
TimestepOption = Annotated[
    float | None,
    typer.Option(
        parser=parse_time,
        metavar="TIME",
        help="Time to decode from, one that is stored; the artifact's by default.",
    ),
]
GuidanceOption = Annotated[
    float | None, typer.Option(help="Guidance while decoding; 1 is none. The artifact's by default.")
]
SamplingOption = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        autocompletion=_methods,
        help="How groups are sampled: modes, moment_matched, search, or curated: the first images of "
        "an order that d3hr curate has stored. By default as the artifact says for so many images, else "
        "over the modes where it stores them.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(help="Where to generate, as in PyTorch; CUDA if there is one, else MPS, else the CPU."),
]


@dataclass(frozen=True)
class SetArguments:
    """Which set of images is meant: the options of a command, in their order."""

    artifact: Annotated[str | None, typer.Option(help=f"{WHERE}.")] = None
    name: Annotated[
        str | None,
        typer.Option(
            autocompletion=_names,
            help=f"Name of a data set, by default {DEFAULT_NAME}; checks the classes of an artifact.",
        ),
    ] = None
    ipc: Annotated[int, typer.Option(min=1, help="Images per class.")] = 10
    seed: SeedOption = 0
    root: RootOption = None
    classes: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="A class to keep; repeat it. All by default.")
    ] = None
    subset: Annotated[
        str | None, typer.Option(help="A usual subset of a named data set: imagenette, ...")
    ] = None
    nested: Annotated[
        bool, typer.Option("--nested", help="Share the first images with sets of other sizes.")
    ] = False
    sampling: SamplingOption = None
    timestep: TimestepOption = None
    guidance_scale: GuidanceOption = None
    solver: Annotated[
        Literal["ddim", "dpm++2m", "unipc"] | None,
        typer.Option(help="How steps are made; the last two for few of them. The artifact's by default."),
    ] = None
    num_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps from the time to decode from. By default as the artifact says."),
    ] = None
    spacing: Annotated[
        Literal["uniform", "quadratic", "cubic", "logsnr"] | None,
        typer.Option(help="How --num-steps are spaced."),
    ] = None
    guidance_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Times between which guidance is applied, and none elsewhere."),
    ] = None
    device: DeviceOption = None
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="Precision of the diffusion model.")
    ] = "float32"
    cpu_offload: CpuOffloadOption = False


def make_dataset(given: SetArguments) -> D3HRDataset:
    """Return the data set that the options of a command ask for; nothing of it is generated yet."""
    import torch

    from d3hr_datasets.artifact.artifact import Artifact
    from d3hr_datasets.dataset.dataset import D3HRDataset
    from d3hr_datasets.dataset.generation_settings import default_settings
    from d3hr_datasets.dataset.named_datasets import named_dataset

    if given.device is not None:
        try:
            torch.empty(0, device=given.device)
        except (RuntimeError, AssertionError) as error:
            raise typer.BadParameter(f"--device {given.device}: {str(error).splitlines()[0]}") from error
    if given.name is None and given.artifact is not None:
        if given.subset is not None:
            raise typer.BadParameter("--subset needs --name: it names the class list")
        kind, found = None, Artifact.from_pretrained(given.artifact)
    else:
        kind = named_dataset(given.name or DEFAULT_NAME)
        found = kind.find_artifact(given.artifact)
    decode = default_settings(found.info, given.ipc, given.nested, given.sampling, redrawn=given.seed != 0)[1]
    options: SetOptions = {
        "classes": given.classes or None,
        "nested": given.nested,
        "device": given.device,
        "torch_dtype": getattr(torch, given.dtype),
        "cpu_offload": given.cpu_offload,
        "sampling": cast(Any, given.sampling),
        "decode": _decoding(decode, given),
    }
    if kind is None:
        return D3HRDataset(found, given.root, given.ipc, given.seed, **options)
    return kind(given.root, given.ipc, given.seed, artifact=found, subset=given.subset, **options)


def _decoding(decode: DecodeConfig, given: SetArguments) -> DecodeConfig:
    """Return an artifact's settings of decoding with those that are given."""
    names = ("timestep", "guidance_scale", "solver", "num_steps", "spacing", "guidance_interval")
    changes = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if given.num_steps is not None:
        changes["num_inference_steps"] = None
    return dataclasses.replace(decode, **changes)


def describe(dataset: D3HRDataset) -> dict[str, Any]:
    """Return what a command says of a data set in JSON."""
    return {
        "num_images": len(dataset),
        "classes": list(dataset.classes),
        "ipc": dataset.ipc,
        "seed": dataset.seed,
        "fingerprint": dataset.fingerprint,
    }
