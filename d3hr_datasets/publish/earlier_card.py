"""What is kept of an earlier card: accuracies, near copies, the size of the preview, the author's notes."""

from __future__ import annotations

import re
from pathlib import Path

from d3hr_datasets.artifact.facts import MAX_CARD_BYTES
from d3hr_datasets.io.untrusted_files import is_file, read_file

ACCURACY = "## Accuracy"
COPIES = "## Near copies"
NOTES = "<!-- notes: what follows is yours and stays when the card is written again -->"


def kept_section(text: str, heading: str) -> str | None:
    """Return a section of an earlier card (without the author's notes) by its heading, or None."""
    found = re.search(rf"^{heading}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return None if found is None else found[0].strip()


def preview_ipc_of(path: Path, num_classes: int) -> int | None:
    """Return the images per class of an earlier preview; None where there is none that can be read."""
    from pyarrow import ArrowException, parquet

    try:
        num_images = int(parquet.read_metadata(path).num_rows)
    except (OSError, ArrowException):
        return None
    return num_images // num_classes or None


def split_notes(card: Path) -> tuple[str, str]:
    """Return what an earlier card says, and its notes."""
    text = read_file(card, MAX_CARD_BYTES).decode("utf-8", "replace") if is_file(card) else ""
    written, _, notes = text.partition(f"{NOTES}\n")
    return written, notes
