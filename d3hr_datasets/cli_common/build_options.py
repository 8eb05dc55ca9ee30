"""The options of `d3hr build` alone: of the source, the inversion, the modes, and how it runs.

In: nothing. Out: annotations for parameters of a command. Those that `d3hr import` has, too, are in
`artifact_options`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from d3hr_datasets.cli_common.times import parse_time

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A folder with one folder per class, torchvision:NAME[:ROOT] (ROOT: data), or "
        "datasets:NAME (on the Hub, a folder, a Parquet or tar file).",
    ),
]
SplitOption = Annotated[str, typer.Option(help="Split of a torchvision or datasets source.")]
DownloadOption = Annotated[bool, typer.Option("--download", help="Let torchvision download it.")]
StreamingOption = Annotated[
    bool, typer.Option("--streaming", help="Read a datasets source without storing it.")
]
ImageColumnOption = Annotated[str | None, typer.Option(help="Column of images.")]
LabelColumnOption = Annotated[str | None, typer.Option(help="Column of labels.")]
ClassMapOption = Annotated[
    Path | None,
    typer.Option(help="JSON object: class of the source -> label, name or wnid of the model, or null."),
]
ClassOrderOption = Annotated[
    Literal["match", "same"],
    typer.Option(help="'same': the source's labels are the model's. Otherwise names are matched."),
]
TimestepsOption = Annotated[
    list[float] | None,
    typer.Option(
        "--timestep",
        parser=parse_time,
        metavar="TIME",
        help="Time to keep statistics of: a timestep, or of a flow-matching model a sigma; repeat it. "
        "[600 of 1000, or 0.6]",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Steps of the whole grid, of inversion and decoding. [no grid; of ddim: 50]"),
]
NumStepsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Steps of inversion, instead of those of a grid. [6; of ddim, those of a grid]"),
]
SpacingOption = Annotated[
    Literal["uniform", "quadratic", "cubic", "logsnr"] | None,
    typer.Option(help="How --num-steps are spaced; cubic is closest together near the clean end. [cubic]"),
]
GuidanceOption = Annotated[float, typer.Option(help="Guidance while inverting; 1 is none.")]
InversionOption = Annotated[
    Literal["fixed_point", "ddim", "adams"],
    typer.Option(help="The more exact inversion, the paper's at the same cost, or one of second order."),
]
EvaluationsOption = Annotated[int, typer.Option(min=1, help="Of the model, in each step of fixed_point.")]
NoiseTimestepOption = Annotated[
    Literal["source", "target"],
    typer.Option(help="Where a step of ddim evaluates the model; D3HR's code: target."),
]
LatentOption = Annotated[
    Literal["mean", "sample"], typer.Option(help="Of the VAE's posterior; D3HR's code: sample.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of posterior samples.")]
ModesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Modes per class; 1 stores none. By default a twentieth of the images of the smallest "
        "class, at most 50; none where a class has fewer than 100 images, or where labels are known only "
        "when images are read, as of a stream: say how many then.",
    ),
]
PromptOption = Annotated[
    str | None,
    typer.Option(
        help="For a model of prompts: one for all classes, with {name} where the name of a class goes, as "
        "'a photo of a {name}'."
    ),
]
PromptsOption = Annotated[
    Path | None, typer.Option(help="JSON object: class -> prompt, instead of --prompt.")
]
NegativePromptOption = Annotated[
    str | None, typer.Option(help="What guidance leads away from; by default as the model's pipeline has it.")
]
StoreEmbeddingsOption = Annotated[
    bool,
    typer.Option(
        "--store-embeddings", help="Store what prompts are to the model, so that no text encoder is needed."
    ),
]
AdapterOption = Annotated[
    Path | None,
    typer.Option(help="Folder of an adapter of the model (d3hr adapt), copied into the artifact."),
]
ShrinkageOption = Annotated[
    str,
    typer.Option(
        metavar="auto|none|SHARE",
        help="How far variances are drawn towards those that all classes share; auto: by the share that errs "
        "least, of classes with fewer than 100 images.",
    ),
]
BudgetsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json",
        help="Other settings for sets of few images per class: a JSON list of rules, as `d3hr budgets` takes "
        "it.",
    ),
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Side of the images; a black frame fills up to the model's. By default what the model was "
        "trained on, where it says so, else no frame.",
    ),
]
WorkOption = Annotated[
    Path | None, typer.Option(help="Folder of finished chunks, shared by all machines. [OUTPUT.chunks]")
]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Halved when memory runs out.")]
BuildBatchSizeOption = Annotated[
    int | None, typer.Option(min=1, help="Halved when memory runs out. [256, with --epsilon 1]")
]
ChunkSizeOption = Annotated[int, typer.Option(min=1, help="Images that a killed process loses.")]
ReadersOption = Annotated[int, typer.Option(min=1, help="Threads that read images.")]
SkipUnreadableOption = Annotated[
    int, typer.Option(min=0, help="Images that may be left out; they are named in the artifact.")
]
DeviceOption = Annotated[str | None, typer.Option(help="As in PyTorch; by default a GPU of this process.")]
DtypeOption = Annotated[
    Literal["float32", "bfloat16", "float16"], typer.Option(help="Precision of the model.")
]
CompileOption = Annotated[bool, typer.Option("--compile", help="Use torch.compile; on a CPU it needs g++.")]
ReferenceOption = Annotated[
    bool,
    typer.Option("--reference", help="Invert and decode as D3HR's code does: docs/reference-differences.md."),
]
ToleranceOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Stop a class when the standard error of its means is at most this share of its spread, such as "
        "0.03: its images are taken in random order. By default all are.",
    ),
]
KeepSumsOption = Annotated[
    bool,
    typer.Option(
        "--moments",
        help="Also store the sums behind the statistics: artifacts that have them merge exactly.",
    ),
]
MembershipOption = Annotated[
    Path | None,
    typer.Option(
        help="With --moments: file, outside the artifact, of a keyed digest of each image, so that images "
        "can be forgotten. Yours alone: it is never published."
    ),
]
MembershipKeyOption = Annotated[
    Path | None,
    typer.Option(help="File of its secret key, made if it is missing. [membership.key beside the file]"),
]

EpsilonOption = Annotated[
    float | None,
    typer.Option(
        help="With --delta: private statistics. By how much one image may change the odds of anything, "
        "as exp(epsilon). Each build of the same images spends it anew."
    ),
]
DeltaOption = Annotated[
    float | None,
    typer.Option(
        help="With --epsilon: the probability of more; far less than one in the number of images, as 1e-6."
    ),
]


def parse_shrinkage(text: str) -> Any:
    """Return a share as a number; what is none is said where the settings are checked."""
    try:
        return float(text)
    except ValueError:
        return text
