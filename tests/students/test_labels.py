"""Stored soft labels: what they keep, and of which images they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from d3hr_datasets.errors import SoftLabelsError
from d3hr_datasets.students.soft_labels import SoftLabels, images_digest
from d3hr_datasets.students.views import (
    TensorImages,
)
from tests.support.tiny_students import CLASSES


@pytest.mark.parametrize(
    ("top_k", "storage", "num_bytes", "tolerance"),
    [
        (None, "float16", 10 * 6 * 2, 1e-3),
        (None, "int8", 10 * (6 + 4), 0.02),
        (2, "float16", 10 * 2 * (2 + 1), 1e-3),
        (2, "int8", 10 * (2 * 2 + 4), 0.02),
    ],
)
def test_stored_labels(
    top_k: int | None, storage: Any, num_bytes: int, tolerance: float, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(10, 6, generator=generator)
    classes = [f"class {label}" for label in range(6)]
    labels = SoftLabels.from_logits(logits, classes, "teacher", "digest", top_k, storage)
    labels.save(tmp_path / "labels.safetensors")
    loaded = SoftLabels.load(tmp_path / "labels.safetensors")
    assert [path.name for path in tmp_path.glob("*labels*")] == ["labels.safetensors"]
    assert (len(loaded), loaded.num_bytes, loaded.classes) == (10, num_bytes, tuple(classes))
    index = torch.tensor([7, 2])
    found, expected = loaded.probabilities(index, 1.0), logits[index].softmax(dim=1)
    assert torch.allclose(found.sum(dim=1), torch.ones(2), atol=1e-5)
    kept = expected.topk(top_k or 6).indices
    assert torch.allclose(found.gather(1, kept), expected.gather(1, kept), atol=tolerance)
    if top_k is not None:  # the rest is spread evenly
        rest = torch.ones_like(found, dtype=torch.bool).scatter(1, kept, False)
        assert torch.allclose(found[rest].view(2, 4).std(dim=1), torch.zeros(2), atol=1e-6)
    else:
        softened = (logits[index] / 20).softmax(dim=1)
        assert torch.allclose(loaded.probabilities(index, 20.0), softened, atol=1e-3)


def test_stored_labels_of_other_data_are_refused(images: TensorImages, tmp_path: Path) -> None:
    digest = images_digest(images)
    labels = SoftLabels.from_logits(torch.randn(10, 3), CLASSES, "teacher", digest)
    labels.check(CLASSES, digest)
    with pytest.raises(SoftLabelsError, match="differ first at label 1"):
        labels.check(["ant", "cat", "bee"], digest)
    with pytest.raises(SoftLabelsError, match="other images, or for these in another order"):
        turned = TensorImages(images.images.flip(0), torch.tensor(images.targets), CLASSES)
        labels.check(CLASSES, images_digest(turned))
    with pytest.raises(SoftLabelsError, match="a column for each"):
        SoftLabels.from_logits(torch.randn(10, 2), CLASSES, "teacher", digest)
    save_file({"values": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SoftLabelsError, match="has the format None"):
        SoftLabels.load(tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    with pytest.raises(SoftLabelsError, match="cannot be read"):
        SoftLabels.load(tmp_path / "damaged.safetensors")
