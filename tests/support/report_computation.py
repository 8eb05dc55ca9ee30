"""A report as a computation: a folder with an artifact and photos -> the numbers of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

from d3hr_datasets import D3HRDataset
from d3hr_datasets.report import figures, write_report


def report(folder: Path, work: Path) -> Any:
    """Write a report and return its numbers."""
    dataset = D3HRDataset(folder / "int8", work / "cache", ipc=2, device="cpu")
    with mock.patch.object(figures, "projection_figure", return_value=b""):  # t-SNE takes seconds
        write_report(dataset, work / "report", folder / "photos", 4, progress=False)
    return json.loads((work / "report" / "report.json").read_text())
