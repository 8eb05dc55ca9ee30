"""Descriptions that are of no artifact: images that have not been counted, or more than anybody reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from d3hr_datasets import Artifact, ArtifactInfo, ClassGaussians
from d3hr_datasets.artifact.d3hr_json import document_text
from d3hr_datasets.errors import ArtifactFormatError, ConfigError, StatisticsError
from d3hr_datasets.io.untrusted_files import read_json
from tests.support.tampering import METADATA
from tests.support.tiny import TIMESTEPS, tiny_info

UNCOUNTED = tiny_info(counts=())


def test_counts_may_be_found_later() -> None:
    assert ArtifactInfo(**{**vars(UNCOUNTED), "counts": (4, 4, 4)}) == tiny_info()
    for counts in ((4,), (4, 4, 4, 4)):
        with pytest.raises(ConfigError, match=r"counts must have one entry per class \(3\)"):
            tiny_info(counts=counts)


@pytest.mark.parametrize("change", ["empty", "missing"])
def test_an_artifact_without_counts_is_not_read(change: str, artifact_copy: Path) -> None:
    document = json.loads((artifact_copy / METADATA).read_text())
    document["info"]["counts"] = []
    if change == "missing":
        del document["info"]["counts"]
    (artifact_copy / METADATA).write_text(json.dumps(document))
    with pytest.raises(ArtifactFormatError, match=r"counts must have one entry per class \(3\)"):
        Artifact.load(artifact_copy)


def test_an_artifact_without_counts_is_not_written(artifact_copy: Path, tmp_path: Path) -> None:
    shape = (3, *UNCOUNTED.latent_shape)
    gaussians = ClassGaussians(torch.zeros(shape), torch.ones(shape), torch.full((3,), 2))
    with pytest.raises(StatisticsError, match=r"counts are not info\.counts"):
        Artifact.save(tmp_path / "out", UNCOUNTED, dict.fromkeys(TIMESTEPS, gaussians))
    assert not (tmp_path / "out").exists()
    before = (artifact_copy / METADATA).read_bytes()
    with pytest.raises(ConfigError, match="counts must have one entry per class"):
        Artifact(artifact_copy, UNCOUNTED, {}).write_metadata()
    assert (artifact_copy / METADATA).read_bytes() == before


def test_a_description_that_nobody_could_read_is_not_written(tmp_path: Path) -> None:
    left_out = [{"image": f"{number:0900d}.png", "reason": "damaged"} for number in range(10_000)]
    document = {"info": {"source": {"unreadable": left_out}}}
    with pytest.raises(ConfigError, match=r"d3hr.json would have 9,\d+,\d+ bytes; .* at most 8,388,608"):
        document_text(document)
    document["info"]["source"]["unreadable"] = left_out[:5000]
    (tmp_path / "d3hr.json").write_text(document_text(document))
    assert read_json(tmp_path / "d3hr.json") == document
