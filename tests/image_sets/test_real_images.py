"""Splits of real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d3hr_datasets.image_sets.real_images import load_images


def test_splits_do_not_overlap(image_folder: Path) -> None:
    train, targets, names = load_images(str(image_folder), "train", 14, 3)
    held_out, held_out_targets, _ = load_images(str(image_folder), "held-out", 14, 3)
    assert (len(train), len(held_out), names) == (20, 4, ["blue", "green", "red"])
    assert train.shape[1:] == (3, 14, 14)
    both = torch.cat([train, held_out]).flatten(1).unique(dim=0)
    assert len(both) == len(
        load_images(str(image_folder), "train+held-out", 14, 3)[0].flatten(1).unique(dim=0)
    )
    assert sorted(torch.cat([targets, held_out_targets]).tolist()) == [0] * 8 + [1] * 8 + [2] * 8
    with pytest.raises(ValueError, match="no test split"):
        load_images(str(image_folder), "test", 14, 3)
