"""The classifier of real images that judges reconstructed and generated ones.

In: uint8 images (N, 1, 28, 28) and int64 labels. Out: a trained network, its features and its accuracy.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2
from tqdm import tqdm

from d3hr_datasets.image_sets.real_images import load_images
from d3hr_datasets.training.batches import shuffled_batches
from d3hr_datasets.training.learning_rates import one_cycle
from recipes.common.tensor_cache import cached_tensors

MEAN, STD = 0.2861, 0.3530  # of Fashion-MNIST's training images
CLASSIFIER = Path("runs/classifier-fashion-mnist/classifier.safetensors")


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images into the network's inputs."""
    return (images.float() / 255 - MEAN) / STD


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
    images: torch.Tensor, labels: torch.Tensor, epochs: int = 8, seed: int = 0, flips: bool = True
) -> Classifier:
    """Train the classifier with flips and shifts of two pixels, AdamW, one cycle.

    Mirrored images are of the same class, unless `flips` says otherwise, as of digits.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Classifier(int(labels.max()) + 1)
        shift = v2.RandomCrop(images.shape[-1], padding=2)
        augment = v2.Compose([v2.RandomHorizontalFlip(), shift]) if flips else shift
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


def real_classifier() -> Classifier:
    """Return the classifier of all 60,000 training images, trained on the first call."""

    def make() -> dict[str, torch.Tensor]:
        images, labels, _ = load_images("fashion-mnist", "train+held-out", 28, 1)
        return dict(train_classifier(images, labels).state_dict())

    network = Classifier()
    network.load_state_dict(cached_tensors(CLASSIFIER, make))
    return network.eval()


@torch.inference_mode()
def features_of(network: Classifier, images: torch.Tensor) -> torch.Tensor:
    """Return the classifier's features (N, 128) of uint8 images."""
    return torch.cat([network.features(normalize(batch)) for batch in images.split(500)])


@torch.inference_mode()
def accuracy(network: Classifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the top-1 accuracy on uint8 images, in percent."""
    right = [network(normalize(batch)).argmax(dim=1) for batch in images.split(500)]
    return 100 * (torch.cat(right) == labels).float().mean().item()
