"""The page of a report: text, tables and PNG images -> one HTML document that loads nothing.

Images are embedded, there are no scripts, and the page's own policy forbids anything else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape as _escape
from typing import Any

from d3hr_datasets.io.text import printable

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc }
figure { margin: 1rem 0; overflow-x: auto } figcaption { font-size: .875rem; color: #444 }
img { max-width: 100%; height: auto } img.pixels { image-rendering: pixelated; max-width: none }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .75rem; text-align: left;
  border-bottom: 1px solid #ddd } td.number { text-align: right; font-variant-numeric: tabular-nums }
.missing { border-left: 4px solid #b45f06; padding: .5rem 1rem; background: #fff6e8 }
.strips { display: flex; flex-wrap: wrap; gap: 1rem } code { background: #f2f2f2; padding: 0 .2rem }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def escape(text: str) -> str:
    """Return text for HTML; what is not printable is shown as an escape."""
    return _escape("\n".join(map(printable, text.split("\n"))))


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def heading(text: str) -> str:
    """Return a heading below that of a section."""
    return f"<h3>{escape(text)}</h3>"


def missing(text: str, command: str) -> str:
    """Return a paragraph that says what is not there, and the command that brings it."""
    return f'<p class="missing">{escape(text)} <code>{escape(command)}</code></p>'


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; floats are shown with three significant digits, and the first column names rows.

    Args:
        header: Names of the columns; none makes a table without a head.
        rows: The cells.
    """
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    head = f"<thead><tr>{cells}</tr></thead>" if header else ""
    body = "".join(
        f'<tr><th scope="row">{escape(str(row[0]))}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in rows
    )
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
    kind = ' class="number"' if isinstance(value, (int, float)) else ""
    return f"<td{kind}>{escape(str(text))}</td>"


def picture(png: bytes, alt: str, caption: str, scale: int = 0) -> str:
    """Return an embedded PNG with a caption.

    Args:
        png: The file.
        alt: What is seen, for those who do not see it.
        caption: Shown below.
        scale: Screen pixels per pixel of a small picture, shown sharp; 0 fits a figure to the page.
    """
    data = base64.b64encode(png).decode("ascii")
    size = ""
    if scale:
        width = int.from_bytes(png[16:20], "big")  # of the header chunk
        size = f' class="pixels" width="{width * scale}"'
    image = f'<img{size} alt="{escape(alt)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def page(title: str, sections: dict[str, str]) -> str:
    """Return the document; values of `sections` are HTML, all else is plain text."""
    body = "\n".join(f"<section><h2>{escape(name)}</h2>\n{html}</section>" for name, html in sections.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<main>
{body}
</main>
</body>
</html>
"""
