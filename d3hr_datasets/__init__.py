"""Distilled image data sets for PyTorch: D3HR class Gaussians over inverted diffusion latents.

Example:
    >>> from torch.utils.data import DataLoader
    >>> from d3hr_datasets import D3HRFashionMNIST
    >>> loader = DataLoader(D3HRFashionMNIST(ipc=10, transform=ToTensor()), batch_size=50)
"""

from d3hr_datasets.artifact import Artifact
from d3hr_datasets.artifact_info import ArtifactInfo
from d3hr_datasets.config import DecodeConfig, GroupSamplingConfig, InversionConfig, ModelReference
from d3hr_datasets.dataset import D3HRDataset
from d3hr_datasets.errors import D3HRError
from d3hr_datasets.gaussians import ClassGaussians, RunningMoments
from d3hr_datasets.group_sampling import group_score, sample_group
from d3hr_datasets.named import (
    D3HRCIFAR10,
    D3HRCIFAR100,
    D3HRFashionMNIST,
    D3HRImageNet,
    D3HRTinyImageNet,
)

__version__ = "0.1.0"

__all__ = [
    "D3HRCIFAR10",
    "D3HRCIFAR100",
    "Artifact",
    "ArtifactInfo",
    "ClassGaussians",
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
    "group_score",
    "sample_group",
]
