"""Other means of modes in the file of an artifact's statistics, all else in it as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.tensors import with_mode_means
from d3hr_datasets.io.atomic import replace_file
from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def write_mode_means(path: Path, info: ArtifactInfo, means: Mapping[float, torch.Tensor]) -> None:
    """Replace means of modes, rounded as `info.dtype` stores them; the file keeps its size.

    Args:
        path: The file of statistics of an artifact, which has been checked.
        info: What the artifact describes.
        means: (K, M, *latent) by timestep, of those whose means change.

    Raises:
        StatisticsError: Means overflow `info.dtype`.
    """
    tensors = with_mode_means(path, info, means)
    replace_file(path, lambda temporary: save_file(tensors, temporary))
