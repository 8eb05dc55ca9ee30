"""The options that say which set of images is meant, as `d3hr materialize` and `d3hr export` take them.

In: arguments. Out: the data set.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer

if TYPE_CHECKING:
    from d3hr_datasets.dataset.dataset import D3HRDataset

DEFAULT_NAME = "fashion-mnist"
WHERE = "Folder of an artifact, or ORG/NAME[@REVISION] on the Hub"


def _names(incomplete: str) -> list[str]:
    """Complete the name of a data set."""
    from d3hr_datasets.dataset.registry import REGISTRY

    return [name for name in REGISTRY if name.startswith(incomplete)]


def _methods(incomplete: str) -> list[str]:
    """Complete the name of a sampler."""
    from d3hr_datasets.config.settings import GroupSamplingMethod

    return [method for method in get_args(GroupSamplingMethod) if method.startswith(incomplete)]


ArtifactOption = Annotated[str | None, typer.Option("--artifact", help=f"{WHERE}.")]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        autocompletion=_names,
        help=f"Name of a data set, by default {DEFAULT_NAME}; checks the classes of an artifact.",
    ),
]
IpcOption = Annotated[int, typer.Option(min=1, help="Images per class.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the images.")]
ClassesOption = Annotated[
    list[str] | None,
    typer.Option("--classes", metavar="CLASS", help="A class to keep; repeat it. All by default."),
]
SubsetOption = Annotated[str | None, typer.Option(help="A usual subset of a named data set: imagenette, ...")]
NestedOption = Annotated[
    bool, typer.Option("--nested", help="Share the first images with sets of other sizes.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Where to generate, as in PyTorch; CUDA if there is one, else the CPU.")
]
DtypeOption = Annotated[
    Literal["float32", "float16", "bfloat16"], typer.Option(help="Precision of the diffusion model.")
]
SamplingOption = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        autocompletion=_methods,
        help="How groups are sampled: modes, moment_matched or search. By default over the modes where the "
        "artifact stores them.",
    ),
]
TimestepOption = Annotated[
    int | None, typer.Option(help="Timestep to decode from, one that is stored; the artifact's by default.")
]
GuidanceOption = Annotated[
    float | None, typer.Option(help="Guidance while decoding; 1 is none. The artifact's by default.")
]


def make_dataset(
    artifact: str | None,
    name: str | None,
    ipc: int,
    seed: int,
    root: Path | None,
    classes: list[str] | None,
    subset: str | None,
    nested: bool,
    device: str | None,
    dtype: str,
    sampling: str | None,
    timestep: int | None,
    guidance_scale: float | None,
) -> D3HRDataset:
    """Return the data set that the options of a command ask for; nothing of it is generated yet."""
    import torch

    from d3hr_datasets.artifact.artifact import Artifact
    from d3hr_datasets.config.settings import GroupSamplingConfig
    from d3hr_datasets.dataset.dataset import D3HRDataset
    from d3hr_datasets.dataset.named import named_dataset

    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise typer.BadParameter(f"--device {device}: {str(error).splitlines()[0]}") from error
    if name is None and artifact is not None:
        if subset is not None:
            raise typer.BadParameter("--subset needs --name: it names the class list")
        kind, found = None, Artifact.from_pretrained(artifact)
    else:
        kind = named_dataset(name or DEFAULT_NAME)
        found = kind.find_artifact(artifact)
    given: dict[str, Any] = {"timestep": timestep, "guidance_scale": guidance_scale}
    options: dict[str, Any] = {
        "classes": classes or None,
        "nested": nested,
        "device": device,
        "torch_dtype": getattr(torch, dtype),
        "sampling": None if sampling is None else GroupSamplingConfig(cast(Any, sampling)),
        "decode": dataclasses.replace(
            found.info.decode, **{field: value for field, value in given.items() if value is not None}
        ),
    }
    if kind is None:
        return D3HRDataset(found, root, ipc, seed, **options)
    return kind(root, ipc, seed, artifact=found, subset=subset, **options)


def describe(dataset: D3HRDataset) -> dict[str, Any]:
    """Return what a command says of a data set in JSON."""
    return {
        "num_images": len(dataset),
        "classes": list(dataset.classes),
        "ipc": dataset.ipc,
        "seed": dataset.seed,
        "fingerprint": dataset.fingerprint,
    }
