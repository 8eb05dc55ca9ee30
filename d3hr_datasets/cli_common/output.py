"""What commands print, and the options that say how and where.

In: values. Out: JSON, or text for people, on stdout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from d3hr_datasets.runs.estimate import Estimate

EstimateOption = Annotated[
    bool,
    typer.Option(
        "--estimate",
        help="Run a few batches, say what all would cost (forward passes, time, memory, disk), and write "
        "nothing.",
    ),
]
CpuOffloadOption = Annotated[
    bool,
    typer.Option(
        "--cpu-offload",
        help="Have the parts of the diffusion model take turns on the GPU and wait in the host's memory: "
        "slower, for a GPU that is too small for all of them.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RootOption = Annotated[
    Path | None, typer.Option(help="Folder of the cache; in the Hugging Face assets cache by default.")
]


def print_json(value: Any) -> None:
    """Print JSON to stdout, in ASCII where that is not UTF-8."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("_", "-") == "utf-8"
    typer.echo(json.dumps(value, indent=2, ensure_ascii=not is_utf8))


def format_bytes(number: int) -> str:
    """Return a size for people."""
    return f"{number / 1e6:.1f} MB"


def print_estimate(estimate: Estimate, as_json: bool) -> None:
    """Print what a run would cost."""
    if as_json:
        print_json(estimate.to_dict())
        return
    rows = estimate.rows()
    width = max(map(len, rows))
    for name, text in rows.items():
        typer.echo(f"{name:<{width}} {text}")
