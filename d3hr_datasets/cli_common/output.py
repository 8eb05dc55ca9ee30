"""What commands print, and the options that say how and where.

In: values. Out: JSON, or text for people, on stdout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

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
