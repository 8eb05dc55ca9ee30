"""What builds from one's own photos are tried with: models of several kinds, a build, the Hub and back."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.publish.card import write_card
from d3hr_datasets.publish.upload import publish_artifact
from tests.cli.test_cli import succeed
from tests.support.tiny_kinds import save_kind

REPO = "org/my-set"
LICENCE = "---\nlicense: other\nlicense_name: tiny-license\nlicense_link: https://example.org/terms\n---\n"


def save_models(folder: Path) -> Path:
    """Save models `text`, `flow` and `dit`, each with a card."""
    for name, kind in (("text", "sd-1"), ("flow", "dit-flow"), ("dit", "dit")):
        save_kind(kind, folder / name)
        (folder / name / CARD).write_text(LICENCE)
    return folder


def pixels(dataset: D3HRDataset) -> np.ndarray:
    dataset.materialize(progress=False)
    return np.stack([np.asarray(dataset[index][0]) for index in range(len(dataset))])


def build(images: Path, model: object, output: Path, *more: object) -> Artifact:
    given = ("--steps", 10, "--modes", 1, "--batch-size", 4, "--device", "cpu", *more)
    values = succeed("build", images, "--model", model, "--output", output, *given)
    assert values["counts"] == [8, 8, 8]
    return Artifact.load(output)


def publish(artifact: Artifact, cache: Path) -> str:
    """Publish an artifact with its card, and return the commit."""
    write_card(artifact, REPO, root=cache, device="cpu", progress=False)
    with_model = artifact.info.model.path is not None
    published = publish_artifact(Artifact.load(artifact.folder), REPO, with_model=with_model)
    return str(published.revision)


def assert_same_from_the_hub(artifact: Artifact, tmp_path: Path, images: np.ndarray) -> None:
    """Use an artifact that was published on a machine that has nothing of it, nor of its model."""
    commit = publish(artifact, tmp_path / "cards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "elsewhere" / "hub"))
        _assert_same(artifact, commit, tmp_path, images)


def _assert_same(artifact: Artifact, commit: str, tmp_path: Path, images: np.ndarray) -> None:
    found = D3HRDataset(f"{REPO}@{commit}", tmp_path / "from-hub", ipc=2, device="cpu")
    assert found.artifact.repo_id == REPO and found.artifact.folder != artifact.folder
    assert np.array_equal(pixels(found), images)
    again: D3HRDataset = pickle.loads(pickle.dumps(found))
    assert np.array_equal(pixels(again), images)
