"""Tiny adapters of random weights, as training writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.diffusion.adapters import AdapterDescription, add_adapter, network_digest, save_adapter
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.model_folder import read_kind


def save_tiny_adapter(model: Path, folder: Path, num_classes: int | None = None, **others: Any) -> Path:
    """Save an adapter of the model in a folder, with weights that change what it predicts.

    Args:
        model: The model, whose classes are labels or, with `num_classes` None, anything.
        folder: Of the adapter.
        num_classes: New classes of a DiT.
        others: Of the description.
    """
    kind = read_kind(model)
    network = _network(model)
    torch.manual_seed(7)
    adapted = add_adapter(network, rank=2, alpha=4, num_classes=num_classes)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # which begin at zero, where an adapter changes nothing
            torch.nn.init.normal_(parameter, std=0.3)
    description = AdapterDescription(kind.name, network_digest(model, kind), num_classes, **others)
    save_adapter(adapted, description, folder)
    return folder


def _network(model: Path) -> Any:
    import diffusers

    part, name = read_kind(model).network
    return getattr(diffusers, name).from_pretrained(str(model), subfolder=part)


def weights_of(model: LatentDiffusion) -> torch.Tensor:
    """Return all weights of a network in one tensor."""
    return torch.cat([parameter.flatten() for parameter in model.network.parameters()])
