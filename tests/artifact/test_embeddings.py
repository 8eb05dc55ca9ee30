"""Stored embeddings that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from d3hr_datasets.artifact.embeddings import read_embeddings
from d3hr_datasets.errors import ArtifactFormatError


def test_embeddings_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    values = torch.zeros(3, 2, 4)
    save_file({"encoder_hidden_states": values}, tmp_path / "embeddings.safetensors")
    assert read_embeddings(tmp_path / "embeddings.safetensors", 3).num_classes == 3
    save_file({"encoder_hidden_states": values / 0}, tmp_path / "embeddings.safetensors")
    with pytest.raises(ArtifactFormatError, match=r"\['encoder_hidden_states'\] are not finite"):
        read_embeddings(tmp_path / "embeddings.safetensors", 3)
