"""Modes: found in VAE space, stored beside the class Gaussians, and sampled from as a group."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.datasets import ImageFolder

from d3hr_datasets import (
    Artifact,
    ClassModes,
    D3HRDataset,
    GroupSamplingConfig,
    ModelReference,
    RunningMoments,
    sample_group,
    sample_modes,
)
from d3hr_datasets.artifact.d3hr_json import STATISTICS
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.build.clustering import fit_centroids, nearest_mode
from d3hr_datasets.errors import ArtifactFormatError, ConfigError, StatisticsError
from d3hr_datasets.sampling.mode_sampling import allocate
from tests.support.tampering import change_statistics
from tests.support.tiny import TIMESTEPS, TinyImages, tiny_info, tiny_model, tiny_pipeline

SHAPE = (2, 3, 3)
CONFIG = GroupSamplingConfig("modes", seed=3, mode_spread=1.0)


def _modes(count: tuple[int, ...] = (40, 10, 30, 20), spread: float = 5.0) -> ClassModes:
    generator = torch.Generator().manual_seed(0)
    mean = spread * torch.randn(1, len(count), *SHAPE, generator=generator)
    return ClassModes(mean, torch.rand(1, *SHAPE, generator=generator) + 0.1, torch.tensor([count]))


def _class_mean(modes: ClassModes) -> torch.Tensor:
    weight = (modes.count[0] / modes.count.sum()).view(-1, *[1] * len(SHAPE))
    return (modes.mean[0] * weight).sum(dim=0)


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


def test_rows_taken_together_have_the_moments_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(60, *SHAPE, generator=generator, dtype=torch.float64)
    rows = torch.arange(60) % 6
    apart, together = RunningMoments(6, SHAPE), RunningMoments(2, SHAPE)
    apart.update(latents, rows)
    together.update(latents, rows // 3)
    found, expected = apart.grouped(3).gaussians(), together.gaussians()
    assert found.count.tolist() == expected.count.tolist() == [30, 30]
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.variance, expected.variance)


def test_modes_have_their_own_means_and_a_pooled_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(13, *SHAPE, generator=generator, dtype=torch.float64)
    rows = torch.tensor([0] * 4 + [1] * 3 + [2] * 5 + [3])
    moments = RunningMoments(4, SHAPE)
    moments.update(latents, rows)
    modes = moments.modes(2)
    assert modes.count.tolist() == [[4, 3], [5, 1]]
    torch.testing.assert_close(modes.mean[0, 1], latents[4:7].mean(dim=0))
    squares = latents[:4].var(dim=0, correction=0) * 4 + latents[4:7].var(dim=0, correction=0) * 3
    torch.testing.assert_close(modes.variance[0], squares / 5)


@pytest.mark.parametrize("rows", [[0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2, 3]])
def test_classes_of_too_few_images_for_their_modes_are_refused(rows: list[int]) -> None:
    moments = RunningMoments(4, SHAPE)
    moments.update(torch.zeros(len(rows), *SHAPE), torch.tensor(rows))
    with pytest.raises(StatisticsError, match="2 modes"):
        moments.modes(2)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": torch.zeros(1, 4, 2, 3, 4)},
        {"count": torch.ones(1, 3, dtype=torch.int64)},
        {"count": torch.zeros(1, 4, dtype=torch.int64)},
        {"variance": torch.full((1, *SHAPE), float("nan"))},
        {"variance": torch.full((1, *SHAPE), -1.0)},
        {"mean": torch.full((1, 4, *SHAPE), float("inf"))},
    ],
)
def test_values_that_are_no_modes_are_refused(changes: dict[str, torch.Tensor]) -> None:
    with pytest.raises(StatisticsError):
        dataclasses.replace(_modes(), **changes)


def test_centroids_find_the_modes_of_every_class() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    mode = (torch.arange(90) // 3) % 2
    latents = torch.randn(90, *SHAPE, generator=generator) * 0.1 + 4.0 * mode.view(-1, 1, 1, 1)
    latents += 10.0 * labels.view(-1, 1, 1, 1)
    centroids = fit_centroids(latents, labels, 3, 2)
    assert centroids.shape == (3, 2, *SHAPE)
    found = nearest_mode(latents, labels, centroids)
    for label in range(3):
        own = found[labels == label]
        assert len({(int(a), int(b)) for a, b in zip(own, mode[labels == label], strict=True)}) == 2
        torch.testing.assert_close(
            centroids[label, own[0]], latents[(labels == label) & (mode == mode[label])].mean(dim=0)
        )


def test_classes_of_fewer_images_than_modes_are_named() -> None:
    with pytest.raises(StatisticsError, match=r"class label 1 has 1 images .* 2 modes"):
        fit_centroids(torch.randn(3, *SHAPE), torch.tensor([0, 0, 1]), 2, 2)


def test_modes_without_scikit_learn_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ConfigError, match=r"pip install 'd3hr-datasets\[build\]'"):
        fit_centroids(torch.zeros(3, *SHAPE), torch.zeros(3, dtype=torch.int64), 1, 2)


@pytest.mark.parametrize(
    ("counts", "ipc", "sizes"),
    [
        ([40, 10, 30, 20], 4, [1, 1, 1, 1]),
        ([40, 10, 30, 20], 10, [4, 1, 3, 2]),
        ([40, 10, 30, 20], 20, [8, 2, 6, 4]),
        ([97, 1, 1, 1], 10, [7, 1, 1, 1]),
        ([5], 3, [3]),
        ([7, 7, 7], 5, [2, 2, 1]),  # of equals the first
    ],
)
def test_modes_give_latents_by_their_share_and_at_least_one(
    counts: list[int], ipc: int, sizes: list[int]
) -> None:
    assert allocate(counts, ipc) == sizes


def test_group_of_one_is_the_mean_of_the_class() -> None:
    modes = _modes()
    torch.testing.assert_close(sample_modes(modes, 1, 0, CONFIG)[0], _class_mean(modes))


def test_latents_lie_around_the_means_of_their_modes() -> None:
    modes = _modes()
    group = sample_modes(modes, 100, 0, CONFIG)
    nearest = torch.cdist(group.flatten(1), modes.mean[0].flatten(1)).argmin(dim=1)
    assert nearest.bincount().tolist() == [40, 10, 30, 20]
    residual = group - modes.mean[0][nearest]
    torch.testing.assert_close(residual.mean(dim=0), torch.zeros(SHAPE), atol=1e-5, rtol=0)
    torch.testing.assert_close(residual.var(dim=0), modes.variance[0])


@pytest.mark.parametrize("ipc", [1, 2, 3])
def test_joined_modes_keep_mean_and_variance_of_the_class(ipc: int) -> None:
    modes = _modes((30, 30, 30, 30))
    mean = modes.mean.clone()
    mean[0, 1], mean[0, 3] = mean[0, 0] + 0.1, mean[0, 2] + 0.2
    modes = dataclasses.replace(modes, mean=mean)
    group = sample_modes(modes, ipc, 0, CONFIG)
    assert group.shape == (ipc, *SHAPE) and group.isfinite().all()
    if ipc == 2:  # the close pairs were joined; the noise is z and -z / sqrt(2) of the joined variance
        expected = torch.stack([mean[0, :2].mean(dim=0), mean[0, 2:].mean(dim=0)])
        variance = modes.variance[0] + (0.05**2 + 0.1**2) / 2
        torch.testing.assert_close(group.mean(dim=0), expected.mean(dim=0))
        torch.testing.assert_close((group - expected)[0].square(), variance / 2)


def test_spread_widens_a_group_about_its_modes() -> None:
    modes = _modes()
    exact, wide = (
        sample_modes(modes, 100, 0, GroupSamplingConfig("modes", mode_spread=spread)) for spread in (1.0, 1.5)
    )
    centres = modes.mean[0].repeat_interleave(torch.tensor([40, 10, 30, 20]), dim=0)
    torch.testing.assert_close(wide - centres, 1.5 * (exact - centres), atol=1e-5, rtol=1e-5)


def test_groups_depend_on_seed_and_class_only() -> None:
    modes = _modes()
    group = sample_modes(modes, 7, 1, CONFIG)
    torch.manual_seed(99)
    assert torch.equal(group, sample_modes(modes, 7, 1, CONFIG))
    assert not torch.equal(group, sample_modes(modes, 7, 2, CONFIG))
    assert not torch.equal(group, sample_modes(modes, 7, 1, dataclasses.replace(CONFIG, seed=4)))


@pytest.mark.parametrize("ipc", [0, -1, 1.5, True])
def test_ipc_that_is_no_positive_integer_is_refused(ipc: Any) -> None:
    with pytest.raises(ConfigError, match="ipc"):
        sample_modes(_modes(), ipc, 0, CONFIG)


def test_modes_of_several_classes_are_refused() -> None:
    modes = _modes()
    two = ClassModes(*(tensor.repeat(2, *[1] * (tensor.dim() - 1)) for tensor in dataclasses.astuple(modes)))
    with pytest.raises(ConfigError, match="one class"):
        sample_modes(two, 3, 0, CONFIG)


def test_one_gaussian_cannot_be_sampled_by_modes() -> None:
    with pytest.raises(ConfigError, match="sample_modes"):
        sample_group(torch.zeros(SHAPE), torch.ones(SHAPE), 3, 0, CONFIG)


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
    monkeypatch.setattr("d3hr_datasets.build.clustering.fit_centroids", None)  # not sought again
    statistics = (build(Bright()).folder / STATISTICS).read_bytes()
    assert statistics == (artifact.folder / STATISTICS).read_bytes()


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
        patch.setattr("d3hr_datasets.build.clustering.fit_centroids", None)
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
        D3HRDataset(tiny_artifact, tmp_path, sampling=CONFIG)


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
