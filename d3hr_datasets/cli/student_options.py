"""The options of commands that train students, and what is made of them.

In: arguments. Out: settings to change, as fields of `StudentSettings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def _protocols(incomplete: str) -> list[str]:
    """Complete the name of a protocol."""
    from d3hr_datasets.experiments.protocol_files import protocol_names

    return [name for name in protocol_names() if name.startswith(incomplete)]


PROTOCOL_HELP = "How students are trained: dc, dsa, rded, d3hr, minimax, igd, soft (or teacher)."
ProtocolArgument = Annotated[str, typer.Argument(autocompletion=_protocols, help=PROTOCOL_HELP)]
ProtocolOption = Annotated[str, typer.Option(autocompletion=_protocols, help=PROTOCOL_HELP)]


WITH_OPTIONS = {
    "artifact",
    "class_order",
    "dataset",
    "ipc",
    "normalized",
    "output",
    "seed",
    "source",
}  # settings that `--set` does not take


@dataclass(frozen=True)
class TrainingArguments:
    """What students are trained with, whatever they see: the options of a command, in their order."""

    teacher: Annotated[
        str | None,
        typer.Option(
            help="Of soft and stored labels: embedded:fashion-mnist, local-dir:FOLDER, hf-hub:ORG/NAME, or a "
            "model of timm. The protocol's by default."
        ),
    ] = None
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the images. The protocol's by default.")
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(
            help="Where the real images of a named data set are: torchvision's folder (data by default), or "
            "for ImageNet and Tiny ImageNet a folder with train/ and val/."
        ),
    ] = None
    download: Annotated[bool, typer.Option(help="Let torchvision download the real images.")] = False
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another setting of the protocol; repeat it."),
    ] = None
    compiled: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile: faster, with other rounding.")
    ] = False
    precision: Annotated[Literal["no", "bf16", "fp16"], typer.Option(help="Mixed precision of students.")] = (
        "no"
    )
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0

    def settings(self, dataset: str) -> dict[str, Any]:
        """Return the settings that these options change.

        Args:
            dataset: Of the real images; says what `data` means.
        """
        from d3hr_datasets.runs.settings_files import parse_override

        found = dict(map(parse_override, self.changes or []))
        twice = sorted(found.keys() & WITH_OPTIONS)
        if twice:
            raise typer.BadParameter(f"--set {twice[0]}=... is not taken: an option, or the set, says it")
        if self.data is not None and Path(dataset).expanduser().is_dir():
            raise typer.BadParameter(f"--data is for named data sets; the real images are those of {dataset}")
        if self.data is not None:
            in_torchvision = dataset in {"fashion-mnist", "cifar10", "cifar100"}
            found["data_root" if in_torchvision else "dataset"] = str(self.data)
        options = {
            "teacher": self.teacher,
            "epochs": self.epochs,
            "download": self.download or None,
            "torch_compile": self.compiled or None,
            "mixed_precision": None if self.precision == "no" else self.precision,
            "workers": self.workers or None,
        }
        return found | {name: value for name, value in options.items() if value is not None}
