"""Tensors that take long to make -> a file, which is read the next time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from d3hr_datasets.io.atomic import replace_file


def cached_tensors(path: Path, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the tensors of `path`, made and written first where the file is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in make().items()}
        replace_file(path, lambda temporary: save_file(tensors, temporary))
    return load_file(path)
