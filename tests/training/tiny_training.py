"""Trainings of diffusion models that take seconds, and what they need: images, a VAE, base models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.training.settings import DiffusionTraining
from tests.training.data.make_first_losses import CLASSES, write_inputs

SIZES: dict[str, Any] = {
    "patch_size": 2,
    "num_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "image_size": 14,
    "padding": 1,
}


def tiny_settings(inputs: Path, output: Path, **changes: Any) -> DiffusionTraining:
    """Return settings of twelve steps on `inputs`, of `write_inputs`; of a new DiT by default."""
    values: dict[str, Any] = {
        "output": str(output),
        "source": str(inputs / "images"),
        "batch_size": 4,
        "epochs": 2,
        "learning_rate": 1e-3,
        "ema_decay": 0.9,
        "log_every": 1,
        "label_dropout": 0.5,
        "minutes_between_checkpoints": 0.0,
        "minutes_between_samples": 60.0,
        "samples_per_class": 1,
    }
    if changes.get("start", "scratch") == "scratch":
        values |= {"vae": str(inputs / "vae"), **SIZES}
    return DiffusionTraining(**{**values, **changes})


def metrics(output: Path, column: str = "mse", table: str = "metrics") -> list[float]:
    """Return a column of a run's table."""
    import csv

    with (output / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def save_base(folder: Path, num_classes: int = 5, **options: Any) -> Path:
    """Save a tiny base model of class labels, of images of 16 pixels without a frame."""
    from tests.support.tiny import tiny_pipeline

    pipeline = tiny_pipeline(channels=3, num_classes=num_classes, **options)
    pipeline.save_pretrained(folder)
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a model's network, or of an adapter."""
    from safetensors.torch import load_file

    adapter = folder / "adapter_model.safetensors"
    if adapter.exists():
        return load_file(adapter)
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


__all__ = ["CLASSES", "metrics", "save_base", "tiny_settings", "weights_of", "write_inputs"]
