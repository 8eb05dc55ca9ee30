"""What is done on CUDA alone, run on a GPU where there is one: the same images as without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d3hr_datasets import D3HRDataset
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.numerics.second_stream import SecondStream
from tests.support.tiny import tiny_pipeline

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def _dataset(artifact: Path, root: Path, **options: Any) -> D3HRDataset:
    return D3HRDataset(artifact, root, 5, device="cuda", **options)


def _pixels(dataset: D3HRDataset) -> Any:
    return np.stack([np.asarray(dataset[index][0], dtype=int) for index in range(len(dataset))])


@pytest.fixture
def expected(tiny_artifact: Path, tmp_path: Path) -> Any:
    dataset = _dataset(tiny_artifact, tmp_path / "plain")
    dataset.model().second_stream = SecondStream(None)
    dataset.materialize(4, progress=False)
    return _pixels(dataset)


def test_decoding_beside_denoising_changes_no_image(
    tiny_artifact: Path, tmp_path: Path, expected: Any
) -> None:
    dataset = _dataset(tiny_artifact, tmp_path / "aside")
    assert dataset.model().second_stream.is_there
    dataset.materialize(4, progress=False)
    assert np.abs(_pixels(dataset) - expected).max() <= 1


def test_cuda_graphs_change_no_image_by_more_than_a_grey_level(
    tiny_artifact: Path, tmp_path: Path, expected: Any
) -> None:
    dataset = _dataset(tiny_artifact, tmp_path / "graphs")
    dataset.materialize(4, progress=False, torch_compile=True)  # the last batch has three
    assert dataset.model().denoiser.recorded is not None
    assert np.abs(_pixels(dataset) - expected).max() <= 1


def test_parts_that_take_turns_change_no_image_and_leave_the_gpu(
    tiny_artifact: Path, tmp_path: Path, expected: Any
) -> None:
    dataset = _dataset(tiny_artifact, tmp_path / "turns", cpu_offload=True)
    dataset.materialize(4, progress=False)
    model = dataset.model()
    assert np.abs(_pixels(dataset) - expected).max() <= 1
    assert {parameter.device.type for parameter in model.network.parameters()} == {"cpu"}
    assert {parameter.device.type for parameter in model.vae.parameters()} == {"cuda"}


def test_a_vae_in_half_precision_keeps_its_layout_when_it_moves() -> None:
    parts = tiny_pipeline()
    model = LatentDiffusion(
        parts.transformer.to(torch.bfloat16),
        parts.vae.to(torch.bfloat16),
        parts.scheduler,
        device="cuda",
        cpu_offload=True,
    )
    model.decode(torch.zeros(1, *model.latent_shape))
    weight = model.vae.decoder.conv_in.weight
    assert weight.is_cuda and weight.is_contiguous(memory_format=torch.channels_last)
