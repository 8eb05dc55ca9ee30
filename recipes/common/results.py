"""What is measured -> files of results, with their settings and command; and back."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.io.atomic import replace_text


def write_results(path: str | Path, settings: dict[str, Any], results: dict[str, Any]) -> None:
    """Write a results file of `results_document`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    replace_text(Path(path), json.dumps(results_document(settings, results), indent=2) + "\n")


def read_results(path: str | Path) -> dict[str, Any]:
    """Return what a results file, or that of a table, says."""
    document: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return document


def results_document(settings: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Return what a results file says: what was measured, with which settings, on what."""
    import diffusers

    return {
        "results": results,
        "settings": settings,
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        },
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
