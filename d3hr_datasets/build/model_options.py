"""How a build loads and runs the diffusion model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from d3hr_datasets.config.checks import check_bool
from d3hr_datasets.errors import ConfigError


@dataclass(frozen=True)
class ModelOptions:
    """How the diffusion model is loaded and run.

    Args:
        device: As in PyTorch; by default a GPU of this process.
        torch_dtype: Precision.
        allow_bin: Also load a folder's .bin weights, with `weights_only`.
        torch_compile: Use torch.compile; on a CPU it needs g++.
        adapter: Folder of an adapter of the model, which becomes part of the artifact.
        cpu_offload: Have network and VAE take turns on the device, and wait in the host's memory: slower, for
            a GPU that is too small for both.

    Raises:
        ConfigError: `torch_dtype` is none of PyTorch's for such numbers, `adapter` no path, or `cpu_offload`
            neither True nor False.
    """

    device: torch.device | str | None = None
    torch_dtype: torch.dtype = torch.float32
    allow_bin: bool = False
    torch_compile: bool = False
    adapter: str | Path | None = None
    cpu_offload: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.torch_dtype, torch.dtype) or not self.torch_dtype.is_floating_point:
            raise ConfigError(f"torch_dtype must be one such as torch.float32, not {self.torch_dtype!r:.80}")
        if self.adapter is not None and not isinstance(self.adapter, str | Path):
            raise ConfigError(f"adapter must be a folder, not {self.adapter!r:.80}")
        check_bool("cpu_offload", self.cpu_offload)
