"""Train on an export by timm's own means: its data sets, loader, optimizer and schedule.

    d3hr export --format image-folder --output exported --ipc 50
    python -m recipes.train.with_timm exported --model resnet18 --img-size 28 --channels 1

    d3hr export --format parquet --output exported-parquet --ipc 50
    python -m recipes.train.with_timm hfds/exported-parquet --model resnet18 --img-size 28 --channels 1

Hard labels and timm's augmentation: no published protocol (that is `d3hr train student`). timm's training
script, which its package does not ship, takes the same data: `train.py --data-dir exported --train-split ""`,
or `train.py --dataset hfds/exported-parquet`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import random_seed
from torch import nn
from torch.nn import functional as F

from d3hr_datasets.students.models import create_student
from recipes.common.errors import RecipeError
from recipes.common.prerequisites import need
from recipes.common.program import program

MODES = {1: "L", 3: "RGB"}


def open_images(name: str, root: str, channels: int, split: str) -> Any:
    """Return timm's data set: of an image folder, or with "hfds/" of a Parquet folder."""
    mode = MODES[channels]
    if name.startswith("hfds/"):
        return create_dataset(name, root=root, split=split, input_img_mode=mode)
    return create_dataset("", root=name, input_img_mode=mode)


def train(
    name: str,
    model: str,
    img_size: int,
    channels: int = 3,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    root: str = "",
    device: str = "cpu",
) -> tuple[nn.Module, list[float]]:
    """Train a model of timm and return it with the mean loss of every epoch.

    Raises:
        RecipeError: The batch is larger than the set: timm's loader drops the last batch, so nothing would
            be trained.
    """
    if not name.startswith("hfds/"):
        need(name, f"d3hr export --format image-folder --output {name}")
    images = open_images(name, root, channels, "train")
    if batch_size > len(images):
        raise RecipeError(
            f"a batch of {batch_size} is larger than the {len(images)} images, and timm drops the last "
            "batch: nothing would be trained; lower --batch-size"
        )
    num_classes = 1 + max(label for _, label in images)
    random_seed(seed)
    network = create_student(model, num_classes, channels, img_size).to(device)
    mean, std = ((0.5,) * channels, (0.25,) * channels)
    loader = create_loader(
        images,
        (channels, img_size, img_size),
        batch_size,
        is_training=True,
        mean=mean,
        std=std,
        num_workers=0,
        use_prefetcher=False,
        device=torch.device(device),
        persistent_workers=False,
        scale=(0.5, 1.0),
        color_jitter=0.0,
    )
    optimizer = create_optimizer_v2(network, "adamw", learning_rate, weight_decay=0.01)
    scheduler, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=epochs, warmup_epochs=0)
    losses = []
    for epoch in range(epochs):
        network.train()
        total = 0.0
        for batch, labels in loader:
            loss = F.cross_entropy(network(batch.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        scheduler.step(epoch + 1)
        losses.append(total / len(loader))
        print(f"epoch {epoch + 1} of {epochs}: loss {losses[-1]:.3f}", flush=True)
    return network, losses


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="an image folder, or hfds/FOLDER of Parquet files")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--channels", type=int, choices=sorted(MODES), default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", default="runs/timm-cache", help="cache of hfds/ data")
    parser.add_argument("--output", type=Path, default=Path("runs/timm.pt"))
    arguments = vars(parser.parse_args())
    output = arguments.pop("output")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network, _ = train(arguments.pop("data"), device=device, **arguments)
    output.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), output)
    print(f"weights: {output}")


if __name__ == "__main__":
    main()
