"""A build that was killed goes on from its chunks, and takes those of no other build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets import InversionConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.support.tampering import STATISTICS, truncate
from tests.support.tiny import TIMESTEPS, tiny_info, tiny_model, tiny_pipeline
from tests.support.tiny_builds import CountingImages, Relabelled, assert_close, build_tiny, statistics_of


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tiny_model()


@pytest.mark.parametrize(("fatal", "finished"), [(0, 0), (5, 4), (9, 8), (11, 8)])
def test_killed_build_goes_on(fatal: int, finished: int, model: LatentDiffusion, tmp_path: Path) -> None:
    expected = build_tiny(model, tmp_path / "whole" / "artifact")
    with pytest.raises(KeyboardInterrupt, match="killed"):
        build_tiny(model, tmp_path / "artifact", CountingImages(fatal))
    assert not (tmp_path / "artifact" / "d3hr.json").exists()
    source = CountingImages()
    artifact = build_tiny(model, tmp_path / "artifact", source)
    assert sorted(source.read) == list(range(finished, 12))
    assert (artifact.folder / STATISTICS).read_bytes() == (expected.folder / STATISTICS).read_bytes()
    assert artifact.fingerprint == expected.fingerprint


def test_finished_build_reads_no_image_again(model: LatentDiffusion, tmp_path: Path) -> None:
    build_tiny(model, tmp_path / "artifact")
    source = CountingImages()
    build_tiny(model, tmp_path / "artifact", source)
    assert source.read == []


def _chunks(work: Path) -> list[Path]:
    return sorted(path for path in work.iterdir() if path.suffix != ".json")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999, None])
def test_damaged_chunk_is_made_again(share: float | None, model: LatentDiffusion, tmp_path: Path) -> None:
    expected = build_tiny(model, tmp_path / "artifact")
    before = (expected.folder / STATISTICS).read_bytes()
    chunks = _chunks(tmp_path / "work")
    assert len(chunks) == 3
    chunks[1].unlink() if share is None else truncate(chunks[1], share)
    source = CountingImages()
    artifact = build_tiny(model, tmp_path / "artifact", source)
    assert sorted(source.read) == [4, 5, 6, 7]
    assert (artifact.folder / STATISTICS).read_bytes() == before
    assert _chunks(tmp_path / "work") == chunks


@pytest.mark.parametrize(
    "changes",
    [
        {"inversion": InversionConfig(TIMESTEPS, num_inference_steps=5, guidance_scale=1.0)},
        {"inversion": InversionConfig(TIMESTEPS, num_inference_steps=10, guidance_scale=3.0)},
        {"inversion": InversionConfig(TIMESTEPS, num_inference_steps=10, latent="sample")},
        {"source": {"name": "other"}},
    ],
    ids=["steps", "guidance", "latent", "source"],
)
def test_chunks_of_another_build_are_not_taken(
    changes: dict[str, Any], model: LatentDiffusion, tmp_path: Path
) -> None:
    build_tiny(model, tmp_path / "artifact")
    source = CountingImages()
    build_tiny(model, tmp_path / "artifact", source, tiny_info(**changes))
    assert sorted(source.read) == list(range(12))


def test_chunks_of_another_model_are_not_taken(model: LatentDiffusion, tmp_path: Path) -> None:
    build_tiny(model, tmp_path / "artifact")
    pipeline = tiny_pipeline()
    pipeline.transformer.proj_out_2.bias.data += 0.1
    other = LatentDiffusion(pipeline.transformer, pipeline.vae, pipeline.scheduler, device="cpu")
    found = statistics_of(build_tiny(other, tmp_path / "artifact"))
    assert_close(found, statistics_of(build_tiny(other, tmp_path / "fresh" / "artifact")), 0)


def test_chunks_of_other_labels_are_not_taken(model: LatentDiffusion, tmp_path: Path) -> None:
    class Targets(Relabelled):
        def __init__(self, targets: list[int]) -> None:
            super().__init__(targets)
            self.targets = targets

    build_tiny(model, tmp_path / "artifact", Targets([0, 1, 2] * 4))
    artifact = build_tiny(model, tmp_path / "artifact", Targets([0] * 8 + [1, 1, 2, 2]))
    assert artifact.info.counts == (8, 2, 2)
