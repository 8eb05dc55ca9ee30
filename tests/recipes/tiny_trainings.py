"""Settings of trainings that take seconds, and where the settings that ship are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3hr_datasets.training.settings import DiffusionTraining
from recipes.train.vae import VAESettings

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
TABLES = CONFIGS / "tables"


def vae_settings(image_folder: Path, output: Path, **changes: Any) -> VAESettings:
    values: dict[str, Any] = {
        "output": str(output),
        "source": str(image_folder),
        "image_size": 14,
        "padding": 1,
        "channels": 3,
        "latent_channels": 2,
        "block_out_channels": [4, 8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "kl_weight": 1e-3,
        "ema_decay": 0.9,
        "log_every": 1,
        "minutes_between_checkpoints": 0.0,
    }
    return VAESettings(**{**values, **changes})


def dit_settings(image_folder: Path, output: Path, vae: Path, **changes: Any) -> DiffusionTraining:
    values: dict[str, Any] = {
        "output": str(output),
        "vae": str(vae),
        "source": str(image_folder),
        "image_size": 14,
        "padding": 1,
        "patch_size": 2,
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "label_dropout": 0.5,
        "snr_gamma": 5.0,
        "ema_decay": 0.9,
        "log_every": 1,
        "minutes_between_checkpoints": 0.0,
        "minutes_between_samples": 60.0,
    }
    return DiffusionTraining(**{**values, **changes})
