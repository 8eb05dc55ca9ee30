"""A perceptual distance without foreign weights: features of a small ConvNet trained on the same images.

Source: LPIPS (Zhang et al., 2018), with all channel weights equal.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from d3hr_datasets.students.convnet import ConvNet
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.training import train_student
from d3hr_datasets.students.views import TensorImages
from recipes.common.classifier import MEAN, STD


class PerceptualDistance(nn.Module):
    """Squared distance of unit-length features after each block, averaged over places and blocks."""

    def __init__(self, network: ConvNet) -> None:
        super().__init__()
        self.features = network.eval().requires_grad_(False).features

    @classmethod
    def train_on(cls, images: torch.Tensor, labels: torch.Tensor, seed: int) -> PerceptualDistance:
        """Train the network on uint8 images (N, C, S, S) and their labels (N,), with progress."""
        # Another network, seed and augmentation than those of the classifier that evaluates.
        channels = images.shape[1]
        protocol = Protocol(
            student="convnet3",
            student_args={"width": 32},
            image_size=images.shape[-1],
            channels=channels,
            mean=[MEAN] * channels,
            std=[STD] * channels,
            epochs=4,
            batch_size=256,
            optimizer="sgd",
            learning_rate=0.01,
            weight_decay=5e-4,
            schedule="step",
            milestones=[0.5],
            labels="hard",
        )
        classes = [str(label) for label in range(int(labels.max()) + 1)]
        data = TensorImages(images, labels, classes)
        with tqdm(total=protocol.epochs, desc="training a network to compare by", unit="epoch") as bar:
            network = train_student(
                protocol, data, len(classes), seed=seed + 1, on_epoch=lambda _: bar.update()
            )
        assert isinstance(network, ConvNet)
        return cls(network.cpu())

    def forward(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return the mean distance of two batches (B, C, S, S) with values in [-1, 1]."""
        left, right = (((batch + 1) / 2 - MEAN) / STD for batch in (images, others))
        distances = []
        for layer in self.features:
            left, right = layer(left), layer(right)
            if isinstance(layer, nn.AvgPool2d):
                difference = F.normalize(left, dim=1) - F.normalize(right, dim=1)
                distances.append(difference.square().sum(dim=1).mean())
        return torch.stack(distances).mean()
