"""Builds find modes, store them beside the class Gaussians, and give them to what samples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.datasets import ImageFolder

from d3hr_datasets import (
    Artifact,
    D3HRDataset,
    GroupSamplingConfig,
    ModelReference,
    sample_modes,
)
from d3hr_datasets.artifact.d3hr_json import STATISTICS
from d3hr_datasets.build import merged_moments
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.build.chunks import Chunk, ChunkMoments
from d3hr_datasets.errors import ArtifactFormatError, ConfigError
from d3hr_datasets.sources.records import ImageRecord
from tests.support.combining import latents
from tests.support.tampering import change_statistics
from tests.support.tiny import TIMESTEPS, TinyImages, tiny_info, tiny_model, tiny_pipeline


class Bright(TinyImages):
    """Three classes of nearly black and nearly white images: two modes that no one can mistake."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = super().__getitem__(index)
        offset = 200 if (index // 3) % 2 else 0
        return image.point(lambda value: value // 64 + offset), label


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("modes")
    tiny_pipeline().save_pretrained(folder / "artifact" / "model")
    return build_artifact(
        Bright(),
        tiny_model(),
        folder / "artifact",
        tiny_info(num_modes=2, dtype="float32"),
        folder / "work",
        batch_size=5,
        chunk_size=7,
        progress=False,
    )


@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_artifact_stores_the_modes_of_the_inverted_latents(timestep: int, artifact: Artifact) -> None:
    modes, gaussians = artifact.modes(timestep), artifact.gaussians(timestep)
    assert modes.count.tolist() == [[2, 2]] * 3 and gaussians.count.tolist() == [4] * 3
    torch.testing.assert_close(modes.mean.mean(dim=1), gaussians.mean, atol=1e-5, rtol=1e-5)
    between = (modes.mean[:, 0] - modes.mean[:, 1]).square()  # of two modes of two images each
    torch.testing.assert_close(modes.variance * 2 / 3 + between / 3, gaussians.variance, atol=1e-4, rtol=1e-4)
    one = artifact.modes(timestep, 1)
    assert torch.equal(one.mean[0], modes.mean[1]) and torch.equal(one.count[0], modes.count[1])


def test_class_gaussians_do_not_depend_on_modes(artifact: Artifact, tmp_path: Path) -> None:
    plain = build_artifact(
        Bright(), tiny_model(), tmp_path / "a", tiny_info(dtype="float32"), tmp_path / "w", progress=False
    )
    torch.testing.assert_close(plain.gaussians(400).mean, artifact.gaussians(400).mean)
    torch.testing.assert_close(plain.gaussians(400).variance, artifact.gaussians(400).variance)


def test_build_that_was_killed_keeps_its_modes(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fatal(Bright):
        fatal = 12

        def __getitem__(self, index: int) -> tuple[Any, int]:
            self.fatal -= index == 8
            if self.fatal == 10:  # read once for the centroids; then in the second chunk
                raise KeyboardInterrupt("killed")
            return super().__getitem__(index)

    def build(source: TinyImages) -> Artifact:
        return build_artifact(
            source,
            tiny_model(),
            tmp_path / "artifact",
            tiny_info(num_modes=2, dtype="float32"),
            tmp_path / "work",
            batch_size=5,
            chunk_size=7,
            progress=False,
        )

    with pytest.raises(KeyboardInterrupt, match="killed"):
        build(Fatal())
    monkeypatch.setattr("d3hr_datasets.build.mode_search.ModePoints", None)  # not sought again
    statistics = (build(Bright()).folder / STATISTICS).read_bytes()
    assert statistics == (artifact.folder / STATISTICS).read_bytes()


@pytest.mark.parametrize("num_shards", [1, 2])
def test_stream_of_the_same_images_has_the_same_modes(
    num_shards: int, artifact: Artifact, tmp_path: Path
) -> None:
    class Stream:
        def __init__(self) -> None:
            self.num_shards = num_shards
            self.num_images = None

        def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
            size = 12 // num_shards
            for index in range(size * shard + start, size * (shard + 1)):
                yield ImageRecord(str(index), str(index), partial(Bright().__getitem__, index))

    tiny_pipeline().save_pretrained(tmp_path / "artifact" / "model")
    info = tiny_info(num_modes=2, dtype="float32")
    sizes: dict[str, Any] = {"batch_size": 5, "chunk_size": 7, "progress": False}
    built = build_artifact(Stream(), tiny_model(), tmp_path / "artifact", info, tmp_path / "work", **sizes)
    for timestep in TIMESTEPS:
        found, expected = built.modes(timestep), artifact.modes(timestep)
        assert torch.equal(found.count, expected.count)
        torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.variance, expected.variance, rtol=0, atol=1e-5)


def test_classes_are_added_up_in_groups_where_memory_is_short(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[list[int]] = []
    empty = merged_moments.MergedMoments._empty

    def noted(self: Any, group: range) -> Any:
        groups.append(list(group))
        return empty(self, group)

    monkeypatch.setattr(merged_moments.MergedMoments, "_empty", noted)
    monkeypatch.setattr(merged_moments, "MERGE_BYTES", 2 * 16 * 2 * 48 * len(TIMESTEPS))
    tiny_pipeline().save_pretrained(tmp_path / "artifact" / "model")
    info = tiny_info(num_modes=2, dtype="float32")
    sizes: dict[str, Any] = {"batch_size": 5, "chunk_size": 7, "progress": False}
    built = build_artifact(Bright(), tiny_model(), tmp_path / "artifact", info, tmp_path / "work", **sizes)
    assert (built.folder / STATISTICS).read_bytes() == (artifact.folder / STATISTICS).read_bytes()
    assert groups == [[0, 1], [2]]


def test_groups_of_classes_hold_no_more_than_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    info = tiny_info(num_modes=2, dtype="int8")
    added = ChunkMoments(TIMESTEPS, 6, info.latent_shape)
    added.update({time: latents(24, seed=time + 1) for time in TIMESTEPS}, torch.arange(24) % 6)
    chunk = Chunk(*added.rows(), pixels=0)

    def merged() -> tuple[Any, Any]:
        moments = merged_moments.MergedMoments(lambda: [chunk], info)
        assert list(moments) == [chunk]
        return moments.statistics()

    expected_gaussians, expected_modes = merged()
    monkeypatch.setattr(merged_moments, "MERGE_BYTES", 1)
    gaussians, modes = merged()
    for time in TIMESTEPS:
        assert modes[time].mean.dtype == torch.float32
        assert torch.equal(modes[time].mean, expected_modes[time].mean.float())
        assert torch.equal(modes[time].variance, expected_modes[time].variance)
        assert torch.equal(modes[time].count, expected_modes[time].count)
        assert torch.equal(gaussians[time].mean, expected_gaussians[time].mean)


def test_modes_of_replaced_images_are_sought_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(name: str, number: int, level: int, side: int = 14) -> None:
        path = tmp_path / "images" / name / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (side, side), level + number).save(path)

    def build(work: str) -> bytes:
        artifact = build_artifact(
            ImageFolder(tmp_path / "images"),
            tiny_model(),
            tmp_path / f"of-{work}",
            tiny_info(num_modes=2, dtype="float32", model=ModelReference("a/b", "c" * 40)),
            tmp_path / work,
            batch_size=5,
            chunk_size=2,
            progress=False,
        )
        return (artifact.folder / STATISTICS).read_bytes()

    for name in "abc":
        for number, level in enumerate((0, 40, 0, 40)):
            write(name, number, level)
    before = build("work")
    with monkeypatch.context() as patch:
        patch.setattr("d3hr_datasets.build.mode_search.ModePoints", None)
        assert build("work") == before  # they are not sought again in the same images
    # The images of the second chunk, which are those that they were, had a mode each and share one now.
    for number in (0, 1):
        write("a", number, 250, side=18)
    after = build("work")
    assert after != before and after == build("another")


def test_artifact_without_modes_says_so(tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no modes"):
        Artifact.load(tiny_artifact).modes(400)
    with pytest.raises(ConfigError, match="no modes"):
        D3HRDataset(tiny_artifact, tmp_path, sampling=GroupSamplingConfig("modes", seed=3, mode_spread=1.0))


@pytest.mark.parametrize("name", ["t400.modes.mean", "t400.modes.variance", "modes.count"])
def test_modes_that_are_not_those_described_are_refused(
    name: str, artifact: Artifact, tmp_path: Path
) -> None:
    def copy(tensors: dict[str, torch.Tensor]) -> Artifact:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "d3hr.json").write_bytes((artifact.folder / "d3hr.json").read_bytes())
        save_file(tensors, folder / STATISTICS)
        changed = Artifact.load(folder)
        changed.write_metadata()
        return Artifact.load(folder)

    tensors = load_file(artifact.folder / STATISTICS)
    for tensor in (tensors[name][:2], tensors[name].half(), None):
        changed = {**tensors, name: tensor}
        with pytest.raises(ArtifactFormatError, match=name):
            copy({key: value.contiguous() for key, value in changed.items() if value is not None}).modes(400)


def test_counts_of_modes_that_do_not_sum_to_those_of_classes_are_refused(
    artifact: Artifact, tmp_path: Path
) -> None:
    for name in ("d3hr.json", STATISTICS):
        (tmp_path / name).write_bytes((artifact.folder / name).read_bytes())
    change_statistics(tmp_path, **{"modes.count": torch.tensor([[2, 2], [1, 2], [2, 2]])})
    with pytest.raises(ArtifactFormatError, match="counts"):
        Artifact.load(tmp_path).modes(400)


def test_dataset_spreads_its_groups_over_the_modes_by_default(artifact: Artifact, tmp_path: Path) -> None:
    dataset = D3HRDataset(artifact.folder, tmp_path, ipc=6, device="cpu")
    assert dataset.sampling.method == "modes"
    expected = sample_modes(artifact.modes(400, 1), 6, 1, dataset.sampling)
    assert torch.equal(dataset.sample_latents(1), expected)
    assert dataset[6][0].size == (14, 14)
    other = D3HRDataset(
        artifact.folder, tmp_path, ipc=6, device="cpu", sampling=GroupSamplingConfig("moment_matched")
    )
    assert other.cache.folder != dataset.cache.folder
    assert other[6][0].tobytes() != dataset[6][0].tobytes()
