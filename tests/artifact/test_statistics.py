"""The statistics of an artifact: what is refused when they are read, and when they are saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import (
    Artifact,
)
from d3hr_datasets.errors import (
    ArtifactFormatError,
    ArtifactIntegrityError,
    ConfigError,
    StatisticsError,
)
from tests.support.gaussians import STATISTICS_SHAPE, tiny_gaussians
from tests.support.tampering import (
    STATISTICS,
    change_statistics,
    flip_byte,
    refresh_checksum,
    truncate,
)
from tests.support.tiny import tiny_info

WEIGHTS = "model/vae/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_statistics_are_refused(share: float, artifact_copy: Path) -> None:
    truncate(artifact_copy / STATISTICS, share)
    with pytest.raises(ArtifactIntegrityError, match=STATISTICS):
        Artifact.load(artifact_copy).gaussians(400)
    refresh_checksum(artifact_copy, STATISTICS)
    with pytest.raises(ArtifactFormatError, match=STATISTICS):
        Artifact.load(artifact_copy).gaussians(400)


def test_missing_statistics_are_named(artifact_copy: Path) -> None:
    (artifact_copy / STATISTICS).unlink()
    with pytest.raises(ArtifactIntegrityError, match=f"{STATISTICS} is missing"):
        Artifact.load(artifact_copy).gaussians(400)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"t400_mean": torch.zeros(3, 3, 4, 5)}, r"t400\.mean .*\[3, 3, 4, 4\]"),
        ({"t400_mean": torch.zeros(2, 3, 4, 4)}, r"t400\.mean"),
        ({"t400_mean": torch.zeros(3, 48)}, r"t400\.mean"),
        ({"t400_mean": torch.zeros(STATISTICS_SHAPE, dtype=torch.int64)}, r"t400\.mean .*I64"),
        ({"t400_variance": torch.zeros(3, 3, 4, 4, 1)}, r"t400\.variance"),
        ({"t400_variance": torch.zeros(STATISTICS_SHAPE, dtype=torch.bool)}, r"t400\.variance"),
        ({"t400_variance": torch.zeros(STATISTICS_SHAPE, dtype=torch.float64)}, r"t400\.variance .*F64"),
        ({"t400_mean": torch.zeros(STATISTICS_SHAPE, dtype=torch.bfloat16)}, r"t400\.mean .*BF16"),
        ({"count": torch.full((4,), 4)}, "count"),
        ({"count": torch.full((3,), 4.0)}, "count"),
        ({"count": torch.full((3,), 4, dtype=torch.int32)}, "count"),
        ({"t400_mean": None}, r"t400\.mean"),
        ({"count": None}, "count"),
    ],
)
def test_statistics_of_another_shape_or_type_are_refused(
    changes: dict[str, Any], named: str, artifact_copy: Path
) -> None:
    change_statistics(artifact_copy, **changes)
    artifact = Artifact.load(artifact_copy)
    for label in (None, 0):
        with pytest.raises(ArtifactFormatError, match=named) as caught:
            artifact.gaussians(400, label)
        assert not isinstance(caught.value, ArtifactIntegrityError)
    with pytest.raises(ArtifactFormatError):
        artifact.verify()


@pytest.mark.parametrize("timestep", ["t400", "tm1"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["mean", "variance"])
def test_statistics_that_are_not_finite_are_refused(
    name: str, value: float, timestep: str, artifact_copy: Path
) -> None:
    tensor = torch.ones(STATISTICS_SHAPE)
    tensor[1, 0, 2, 3] = value
    change_statistics(artifact_copy, **{f"{timestep}_{name}": tensor})
    artifact = Artifact.load(artifact_copy)
    number = {"t400": 400, "tm1": -1}[timestep]
    with pytest.raises(StatisticsError, match=rf"{name} of class labels \[1\]"):
        artifact.gaussians(number)
    with pytest.raises(StatisticsError, match=name):
        artifact.gaussians(number, 1)
    with pytest.raises(StatisticsError, match=name):
        artifact.verify()
    artifact.gaussians(number, 0)


def test_negative_variances_are_refused(artifact_copy: Path) -> None:
    change_statistics(artifact_copy, t400_variance=torch.full(STATISTICS_SHAPE, -0.5))
    with pytest.raises(StatisticsError, match="negative"):
        Artifact.load(artifact_copy).gaussians(400)


def test_counts_below_two_are_refused(artifact_copy: Path) -> None:
    change_statistics(artifact_copy, count=torch.tensor([4, 1, 4]))
    with pytest.raises(StatisticsError, match="fewer than two"):
        Artifact.load(artifact_copy).gaussians(400)


def test_counts_other_than_the_described_ones_are_refused(artifact_copy: Path) -> None:
    change_statistics(artifact_copy, count=torch.tensor([4, 5, 4]))
    for label in (None, 1):
        with pytest.raises(ArtifactFormatError, match="count"):
            Artifact.load(artifact_copy).gaussians(400, label)
    assert Artifact.load(artifact_copy).gaussians(400, 0).count.tolist() == [4]


@pytest.mark.parametrize("timestep", [0, 300, 600, 1000])
def test_timesteps_that_are_not_stored_are_refused(timestep: int, tiny_artifact: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{timestep} .*\[-1, 200, 400\]"):
        Artifact.load(tiny_artifact).gaussians(timestep)


@pytest.mark.parametrize("label", [-1, 3, 1.0, True, "ant"])
def test_class_labels_that_do_not_exist_are_refused(label: Any, tiny_artifact: Path) -> None:
    with pytest.raises(ConfigError, match="class_label"):
        Artifact.load(tiny_artifact).gaussians(400, label)


@pytest.mark.parametrize("name", [WEIGHTS, "model/transformer/config.json"])
def test_changed_model_is_refused(name: str, artifact_copy: Path) -> None:
    flip_byte(artifact_copy / name)
    with pytest.raises(ArtifactIntegrityError, match=Path(name).name):
        Artifact.load(artifact_copy).model_folder()
    with pytest.raises(ArtifactIntegrityError, match=Path(name).name):
        Artifact.load(artifact_copy).verify()


def test_gaussians_must_be_of_the_timesteps_of_the_description(tmp_path: Path) -> None:
    gaussians = tiny_gaussians()
    del gaussians[200]
    with pytest.raises(StatisticsError, match="timesteps"):
        Artifact.save(tmp_path, tiny_info(), gaussians)


@pytest.mark.parametrize("changes", [{"latent_shape": (3, 4, 5)}, {"classes": ("a", "b"), "counts": (4, 4)}])
def test_gaussians_must_be_of_the_shape_of_the_description(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match=r"\(3, 3, 4, 4\)"):
        Artifact.save(tmp_path, tiny_info(**changes), tiny_gaussians())


def test_gaussians_must_have_the_counts_of_the_description(tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match="counts"):
        Artifact.save(tmp_path, tiny_info(counts=(4, 4, 5)), tiny_gaussians())


def test_failed_save_leaves_the_old_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Artifact.save(tmp_path, tiny_info(), tiny_gaussians())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        Artifact.save(tmp_path, tiny_info(), tiny_gaussians(seed=1))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
