"""What is measured -> files of results, with their settings and command."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from d3hr_datasets.io.atomic import replace_file, replace_text


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    replace_text(path, text)


def write_results(path: str | Path, settings: dict[str, Any], results: dict[str, Any]) -> None:
    """Write a results file of `results_document`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results_document(settings, results), indent=2) + "\n"
    write_text(Path(path), text)


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


def cached_tensors(path: Path, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the tensors of `path`, made and written first where the file is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in make().items()}
        replace_file(path, lambda temporary: save_file(tensors, temporary))
    return load_file(path)
