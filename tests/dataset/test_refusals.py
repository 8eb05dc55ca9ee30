"""What a data set refuses: settings that do not fit, models that do not belong, and broken artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets import Artifact, D3HRDataset, DecodeConfig
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.errors import (
    ArtifactIntegrityError,
    ArtifactNotFoundError,
    CacheError,
    ConfigError,
    ModelFormatError,
    ModelNotFoundError,
)
from tests.support.sets import tiny_set
from tests.support.tampering import STATISTICS, change_info, flip_byte
from tests.support.tiny import tiny_pipeline


@pytest.mark.parametrize("ipc", [0, -1, 1.5, "10", True, None, 10**12])
def test_ipc_that_is_no_positive_integer_is_refused(ipc: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ipc"):
        D3HRDataset(tiny_artifact, tmp_path, ipc)


@pytest.mark.parametrize("seed", [-1, 0.5, "0", False])
def test_seed_that_is_no_integer_is_refused(seed: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed"):
        D3HRDataset(tiny_artifact, tmp_path, seed=seed)


@pytest.mark.parametrize(
    "classes", [["ant", "dog"], ["Ant"], [], ["ant", "ant"], ["ant", 0], "ant", [3], [-1], [True], [None]]
)
def test_classes_that_cannot_be_kept_are_refused(classes: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"known: .*bee/wasp"):
        D3HRDataset(tiny_artifact, tmp_path, classes=classes)


@pytest.mark.parametrize(
    ("decode", "named"),
    [
        (DecodeConfig(timestep=300, num_inference_steps=10), r"300 .*\[-1, 200, 400\]"),
        (DecodeConfig(timestep=200, num_inference_steps=3), "200 is not on the grid"),
        (DecodeConfig(timestep=1000, num_inference_steps=10), "1000"),
    ],
)
def test_decode_settings_that_do_not_fit_are_refused(
    decode: DecodeConfig, named: str, tiny_artifact: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        D3HRDataset(tiny_artifact, tmp_path, decode=decode)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"channels": 3}, "image_mode = L.*RGB"), ({"num_classes": 5}, "3 classes.*num_embeds_ada_norm = 5")],
)
def test_model_that_does_not_fit_is_refused(
    options: dict[str, Any], named: str, artifact_copy: Path, tmp_path: Path
) -> None:
    shutil.rmtree(artifact_copy / "model")
    tiny_pipeline(**options).save_pretrained(artifact_copy / "model")
    Artifact.load(artifact_copy).write_metadata()
    _check_misfit(artifact_copy, named, tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"latent_shape": [3, 8, 8]}, r"latent_shape = \(3, 8, 8\).*sample_size = 4"),
        ({"image_size": 28}, r"image_size \+ 2 \* padding = 30.*16"),
        ({"padding": 0}, r"image_size \+ 2 \* padding = 14.*16"),
        ({"image_mode": "RGB"}, "image_mode = RGB.*L"),
        ({"classes": ["ant", "cat"], "counts": [4, 4]}, "2 classes.*num_embeds_ada_norm = 3"),
    ],
    ids=str,
)
def test_description_that_does_not_fit_the_model_is_refused(
    changes: dict[str, Any], named: str, artifact_copy: Path, tmp_path: Path
) -> None:
    change_info(artifact_copy, **changes)
    _check_misfit(artifact_copy, named, tmp_path)


def test_model_of_another_schedule_is_refused(artifact_copy: Path, tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.scheduler = type(pipeline.scheduler)(num_train_timesteps=500)
    pipeline.scheduler.save_pretrained(artifact_copy / "model" / "scheduler")
    Artifact.load(artifact_copy).write_metadata()
    _check_misfit(artifact_copy, "1000 timesteps.*num_train_timesteps = 500", tmp_path)


def _check_misfit(artifact: Path, named: str, tmp_path: Path) -> None:
    dataset = tiny_set(artifact, tmp_path / "root")
    with pytest.raises(ModelFormatError, match=named):
        dataset[0]
    assert not list((tmp_path / "root").rglob("*.png"))


def test_missing_artifact_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match="nowhere"):
        D3HRDataset(tmp_path / "nowhere", tmp_path)


def test_missing_model_is_refused_when_it_is_needed(artifact_copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(artifact_copy / "model")
    dataset = tiny_set(artifact_copy, tmp_path / "root")
    with pytest.raises(ModelNotFoundError, match="model"):
        dataset[0]


def test_changed_statistics_are_refused_when_they_are_needed(artifact_copy: Path, tmp_path: Path) -> None:
    dataset = tiny_set(artifact_copy, tmp_path / "root")
    flip_byte(artifact_copy / STATISTICS)
    with pytest.raises(ArtifactIntegrityError, match=STATISTICS):
        dataset[0]


def test_image_that_cannot_be_cached_is_an_error(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageCache, "read", lambda *args: None)
    dataset = tiny_set(tiny_artifact, tmp_path)
    with pytest.raises(CacheError):
        dataset[0]
