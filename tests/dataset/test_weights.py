"""What real images stand behind each image: weights, without a model and without a generated image."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from d3hr_datasets import D3HRDataset, GroupSamplingConfig
from tests.support.modes import save_artifact_of_modes

COUNTS = [[6, 1, 1], [2, 2, 4], [5, 5, 5]]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an artifact of three classes of three modes, which has no model."""
    return save_artifact_of_modes(tmp_path_factory.mktemp("modes") / "artifact", COUNTS).folder


def test_images_of_a_mode_share_its_real_images(artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(artifact, tmp_path / "cache", ipc=4)
    weights = dataset.weights
    assert (weights.dtype, weights.device.type, weights.shape) == (torch.float32, "cpu", (12,))
    # The fourth image is the largest mode's, which two images share then; of equals the first's.
    expected = [[3, 3, 1, 1], [2, 2, 2, 2], [2.5, 2.5, 5, 5]]
    per_class = weights.view(3, 4)
    for found, counts in zip(per_class, map(torch.tensor, expected), strict=True):
        torch.testing.assert_close(found, counts / counts.double().mean().float())
    assert len(weights) == len(dataset.targets) and not (tmp_path / "cache").exists()
    torch.testing.assert_close(per_class.mean(dim=1), torch.ones(3))


def test_weights_follow_the_latents_that_are_drawn(artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(artifact, tmp_path, ipc=8, sampling=GroupSamplingConfig("modes", mode_spread=0.0))
    for label, counts in enumerate(COUNTS):
        latents = dataset.sample_latents(label).flatten(1)
        means = dataset.artifact.modes(400, label).mean[0].flatten(1)
        modes = torch.cdist(latents, means).argmin(dim=1)
        sizes = modes.bincount(minlength=3)
        shares = (torch.tensor(counts) / sizes)[modes]
        torch.testing.assert_close(dataset.weights.view(3, 8)[label], shares / shares.mean())


def test_joined_modes_stand_for_all_their_images(artifact: Path, tmp_path: Path) -> None:
    assert D3HRDataset(artifact, tmp_path, ipc=1).weights.tolist() == [1.0, 1.0, 1.0]
    images = D3HRDataset(artifact, tmp_path, ipc=2, classes=[0]).weights * 8 / 2  # real ones behind each
    assert sorted(images.tolist()) in ([1.0, 7.0], [2.0, 6.0])


def test_nested_images_share_the_real_images_of_their_mode(artifact: Path, tmp_path: Path) -> None:
    block = D3HRDataset(artifact, tmp_path, ipc=10, nested=True).weights.view(3, 10)
    torch.testing.assert_close(block, D3HRDataset(artifact, tmp_path, ipc=10).weights.view(3, 10))
    longer = D3HRDataset(artifact, tmp_path, ipc=13, nested=True).weights.view(3, 13)
    narrow = GroupSamplingConfig("modes", mode_spread=0.0)
    dataset = D3HRDataset(artifact, tmp_path, ipc=13, nested=True, sampling=narrow)
    for label, counts in enumerate(COUNTS):
        means = dataset.artifact.modes(400, label).mean[0].flatten(1)
        modes = torch.cdist(dataset.sample_latents(label).flatten(1), means).argmin(dim=1)
        masses = torch.zeros(3).index_add(0, modes, longer[label]) / 13
        torch.testing.assert_close(masses, torch.tensor(counts) / sum(counts))
    assert longer[0, 10] != longer[0, 9] and longer[0, 0] == longer[0, 10]
    # A set that ends before a mode comes has nothing of it, and its images weigh alike.
    assert D3HRDataset(artifact, tmp_path, ipc=2, nested=True, classes=[0]).weights.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("method", ["moment_matched", "search"])
def test_latents_of_one_gaussian_weigh_alike(method: str, artifact: Path, tmp_path: Path) -> None:
    sampling = GroupSamplingConfig(method, num_candidates=1)  # type: ignore[arg-type]
    assert D3HRDataset(artifact, tmp_path, ipc=2, sampling=sampling).weights.tolist() == [1.0] * 6


def test_weights_are_of_the_classes_that_are_kept(artifact: Path, tmp_path: Path) -> None:
    whole = D3HRDataset(artifact, tmp_path, ipc=4).weights.view(3, 4)
    kept = D3HRDataset(artifact, tmp_path, ipc=4, classes=[2, 0])
    assert torch.equal(kept.weights.view(2, 4), whole[[2, 0]])
    assert torch.equal(pickle.loads(pickle.dumps(kept)).weights, kept.weights)


def test_weights_are_the_same_under_any_settings_of_the_caller(artifact: Path, tmp_path: Path) -> None:
    expected = D3HRDataset(artifact, tmp_path, ipc=4).weights
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            found = D3HRDataset(artifact, tmp_path, ipc=4).weights
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected) and not found.is_inference()
