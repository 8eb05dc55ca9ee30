"""Students and the classifier: small networks trained on images and labels, measured on real images.

In: uint8 images (N, 1, 28, 28) and int64 labels. Out: a trained network, and its accuracy in percent
after the last epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2
from tqdm import tqdm

from d3hr_datasets.students.models import ConvNet
from recipes.common import one_cycle, shuffled_batches

MEAN, STD = 0.2861, 0.3530  # of Fashion-MNIST's training images


@dataclass(frozen=True)
class StudentSettings:
    """The recipe of DC (Zhao et al., 2021) for small images, without augmentation."""

    width: int = 128
    depth: int = 3
    epochs: int = 300
    batch_size: int = 256
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4


def convnet(settings: StudentSettings, num_classes: int, channels: int = 1, image_size: int = 28) -> ConvNet:
    """Return an untrained ConvNet-D."""
    return ConvNet(num_classes, channels, image_size, settings.depth, settings.width)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images into the networks' inputs."""
    return (images.float() / 255 - MEAN) / STD


@torch.inference_mode()
def predict(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logits (N, K) of uint8 images."""
    network.eval()
    return torch.cat([network(normalize(batch)) for batch in images.split(500)])


def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the top-1 accuracy in percent."""
    return 100 * (predict(network, images).argmax(dim=1) == labels).float().mean().item()


def train_student(
    images: torch.Tensor, labels: torch.Tensor, seed: int, settings: StudentSettings, progress: bool = False
) -> nn.Module:
    """Train a ConvNet on hard labels; the learning rate falls tenfold after half of the epochs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = convnet(settings, int(labels.max()) + 1, images.shape[1], images.shape[2])
    optimizer = torch.optim.SGD(
        network.parameters(),
        settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    inputs = normalize(images)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for epoch in tqdm(range(settings.epochs), desc="training a student", unit="epoch", disable=not progress):
        if epoch == settings.epochs // 2 + 1:
            optimizer.param_groups[0]["lr"] *= 0.1
        for index in torch.randperm(len(inputs), generator=generator).split(settings.batch_size):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(network(inputs[index]), labels[index]).backward()
            optimizer.step()
    return network


class Classifier(nn.Module):
    """A small CNN with batch norm for 28 x 28 grey images; `features` is (N, 128)."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, pool in ((1, 32, True), (32, 64, True), (64, 128, False), (128, 128, False)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            layers += [nn.MaxPool2d(2)] if pool else []
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(128, num_classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the averaged last feature maps of normalised images."""
        return self.trunk(images).mean(dim=(2, 3))  # type: ignore[no-any-return]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of normalised images."""
        return self.head(self.features(images))  # type: ignore[no-any-return]


def train_classifier(
    images: torch.Tensor, labels: torch.Tensor, epochs: int = 8, seed: int = 0
) -> Classifier:
    """Train the classifier with flips and shifts of two pixels, AdamW, one cycle."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Classifier(int(labels.max()) + 1)
        augment = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(images.shape[-1], padding=2)])
        optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.02, fused=True)
        batch_size = 128
        total = epochs * (len(images) // batch_size)
        network.train()
        batches = shuffled_batches(len(images), batch_size, seed, 0)
        for step, index in zip(
            tqdm(range(total), desc="training the classifier", mininterval=20), batches, strict=False
        ):
            optimizer.param_groups[0]["lr"] = 3e-3 * one_cycle(step, total, warmup=0.2)
            halves = [augment(half) for half in images[index].chunk(8)]
            loss = F.cross_entropy(network(normalize(torch.cat(halves))), labels[index], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return network.eval()


@torch.inference_mode()
def features_of(network: Classifier, images: torch.Tensor) -> torch.Tensor:
    """Return the classifier's features (N, 128) of uint8 images."""
    return torch.cat([network.features(normalize(batch)) for batch in images.split(500)])
