"""Markdown: values -> text that means nothing but itself, and tables."""

from __future__ import annotations

import re
from typing import Any

from d3hr_datasets.io.text import printable

_MARKDOWN = re.compile(r"([\\`*_\[\]{}#~$!])")


def markdown(value: object) -> str:
    """Return a text for Markdown that means nothing but itself; cells of tables escape "|" themselves."""
    text = _MARKDOWN.sub(r"\\\1", printable(value))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(value: object) -> str:
    """Return a text as code in Markdown."""
    return "`" + printable(value).replace("`", "'") + "`"


def markdown_table(header: list[str], rows: list[list[Any]]) -> str:
    """Return a Markdown table; floats with three significant digits."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(format_cell(cell) for cell in line) + " |" for line in lines)


def format_cell(value: Any) -> str:
    """Return a value for a table."""
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def format_score(score: dict[str, Any]) -> str:
    """Return mean and standard deviation over seeds."""
    spread = "" if score["std"] is None else f" ± {score['std']:.1f}"
    return f"{score['mean']:.1f}{spread} ({len(score['values'])} seeds)"
