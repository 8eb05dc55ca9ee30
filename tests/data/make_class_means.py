"""Make `fashion_mnist_class_means.png`: the mean training image of each class, side by side.

python -m tests.data.make_class_means
"""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.transforms.v2.functional import to_pil_image

from d3hr_datasets.image_sets.real_images import load_images


def main() -> None:
    images, labels, _ = load_images("fashion-mnist", "train+held-out", 28, 1)
    means = [images[labels == label].float().mean(dim=0).round().to(torch.uint8) for label in range(10)]
    to_pil_image(torch.cat(means, dim=2)).save(Path(__file__).with_name("fashion_mnist_class_means.png"))


if __name__ == "__main__":
    main()
