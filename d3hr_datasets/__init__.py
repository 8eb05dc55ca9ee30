"""Distilled image data sets for PyTorch: D3HR class Gaussians over inverted diffusion latents.

Example:
    >>> from torch.utils.data import DataLoader
    >>> from d3hr_datasets import D3HRFashionMNIST
    >>> loader = DataLoader(D3HRFashionMNIST(ipc=10, transform=ToTensor()), batch_size=50)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d3hr_datasets.artifact import Artifact
    from d3hr_datasets.artifact_info import ArtifactInfo
    from d3hr_datasets.config import DecodeConfig, GroupSamplingConfig, InversionConfig, ModelReference
    from d3hr_datasets.dataset import D3HRDataset
    from d3hr_datasets.errors import D3HRError
    from d3hr_datasets.gaussians import ClassGaussians, ClassModes, RunningMoments
    from d3hr_datasets.group_sampling import group_score, sample_group
    from d3hr_datasets.mode_sampling import sample_modes
    from d3hr_datasets.named import (
        D3HRCIFAR10,
        D3HRCIFAR100,
        D3HRFashionMNIST,
        D3HRImageNet,
        D3HRTinyImageNet,
    )
    from d3hr_datasets.teacher import check_teacher

__version__ = "0.1.0"

__all__ = [
    "D3HRCIFAR10",
    "D3HRCIFAR100",
    "Artifact",
    "ArtifactInfo",
    "ClassGaussians",
    "ClassModes",
    "D3HRDataset",
    "D3HRError",
    "D3HRFashionMNIST",
    "D3HRImageNet",
    "D3HRTinyImageNet",
    "DecodeConfig",
    "GroupSamplingConfig",
    "InversionConfig",
    "ModelReference",
    "RunningMoments",
    "check_teacher",
    "group_score",
    "sample_group",
    "sample_modes",
]

_MODULE_OF = {
    "Artifact": "artifact",
    "ArtifactInfo": "artifact_info",
    "ClassGaussians": "gaussians",
    "ClassModes": "gaussians",
    "D3HRCIFAR10": "named",
    "D3HRCIFAR100": "named",
    "D3HRDataset": "dataset",
    "D3HRError": "errors",
    "D3HRFashionMNIST": "named",
    "D3HRImageNet": "named",
    "D3HRTinyImageNet": "named",
    "DecodeConfig": "config",
    "GroupSamplingConfig": "config",
    "InversionConfig": "config",
    "ModelReference": "config",
    "RunningMoments": "gaussians",
    "check_teacher": "teacher",
    "group_score": "group_sampling",
    "sample_group": "group_sampling",
    "sample_modes": "mode_sampling",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: torch takes seconds, and `d3hr --help` does not need it."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
