"""Training, held-out and generated images of three classes, and what is found of them."""

from __future__ import annotations

from typing import Any

import torch

from d3hr_datasets.copies.comparisons import Comparison, Odds, compare_nearness
from d3hr_datasets.copies.findings import CopyFindings
from d3hr_datasets.copies.nearness import measure_nearness

NAMES = ("ant", "bee", "cat")
SHAPE = (1, 8, 8)


def images(per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise around a brightness of each class, and a noise that differs by class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(per_class)
    noise = torch.randn(len(labels), *SHAPE, generator=generator) * (10 + 15 * labels[:, None, None, None])
    return (60 + 60 * labels[:, None, None, None] + noise).clamp(0, 255).to(torch.uint8), labels


TRAINING, TRAINING_LABELS = images(100, 0)
HELD_OUT, HELD_OUT_LABELS = images(100, 1)


def halves(batch: torch.Tensor) -> torch.Tensor:
    """Stand for a teacher: features of which an image without contrast has few."""
    return batch.flatten(1).float()[:, :40] - 50


def findings(generated: torch.Tensor, labels: torch.Tensor, **changes: Any) -> CopyFindings:
    """Return what is found of images beside the held-out ones."""
    both = torch.cat([generated, HELD_OUT])
    found = measure_nearness(both, TRAINING.split(70), len(TRAINING), halves)
    mine, others = (
        {space: near.part(*places) for space, near in found.items()}
        for places in ((0, len(generated)), (len(generated), len(both)))
    )
    values: dict[str, Any] = {
        "reference": "held out",
        "num_training": len(TRAINING),
        "num_behind": len(TRAINING),
        "num_reference": len(HELD_OUT),
        "num_shared": 0,
        "num_neighbours": 50,
        "teacher": "halves",
        "within_vae": (),
        "spaces": compare_nearness(
            mine, labels, others, HELD_OUT_LABELS, NAMES, changes.get("reference") != "leave one out"
        ),
    }
    return CopyFindings(**{**values, **changes})


def odds(comparison: Comparison) -> Odds:
    assert comparison.odds is not None
    return comparison.odds
