"""A perceptual distance without foreign weights: features of a small ConvNet trained on the same images.

Source: LPIPS (Zhang et al., 2018), with all channel weights equal.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from d3hr_datasets.students.models import ConvNet
from recipes.students import StudentSettings, normalize, train_student

# Another network, seed and augmentation than those of the classifier that evaluates.
NETWORK = StudentSettings(width=32, epochs=4)


class PerceptualDistance(nn.Module):
    """Squared distance of unit-length features after each block, averaged over places and blocks."""

    def __init__(self, network: ConvNet) -> None:
        super().__init__()
        self.features = network.eval().requires_grad_(False).features

    @classmethod
    def train_on(cls, images: torch.Tensor, labels: torch.Tensor, seed: int) -> PerceptualDistance:
        """Train the network on uint8 images (N, C, S, S) and their labels (N,), with progress."""
        network = train_student(images, labels, seed + 1, NETWORK, progress=True)
        assert isinstance(network, ConvNet)
        return cls(network)

    def forward(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return the mean distance of two batches (B, C, S, S) with values in [-1, 1]."""
        left, right = ((batch + 1) * 127.5 for batch in (images, others))
        left, right = normalize(left), normalize(right)
        distances = []
        for layer in self.features:
            left, right = layer(left), layer(right)
            if isinstance(layer, nn.AvgPool2d):
                difference = F.normalize(left, dim=1) - F.normalize(right, dim=1)
                distances.append(difference.square().sum(dim=1).mean())
        return torch.stack(distances).mean()
