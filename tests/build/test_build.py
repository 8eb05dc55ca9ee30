"""Images are inverted and their statistics stored, the same however the work is cut."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.datasets import ImageFolder

from d3hr_datasets import Artifact, InversionConfig, ModelReference
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError, ModelFormatError, StatisticsError, UnreadableImageError
from tests.support.tampering import STATISTICS
from tests.support.tiny import CLASSES, TIMESTEPS, TinyImages, tiny_info, tiny_model, tiny_pipeline
from tests.support.tiny_builds import Relabelled, assert_close, build_tiny, statistics_of


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tiny_model()


@pytest.mark.parametrize("noise_timestep", ["source", "target"])
def test_statistics_are_those_of_all_inverted_latents(
    noise_timestep: Any, model: LatentDiffusion, tmp_path: Path
) -> None:
    inversion = InversionConfig(TIMESTEPS, num_inference_steps=10, noise_timestep=noise_timestep)
    artifact = build_tiny(model, tmp_path / "artifact", info=tiny_info(inversion=inversion))
    frames = torch.full((12, 1, 16, 16), -1.0)
    for index in range(12):
        frames[index, 0, 1:15, 1:15] = torch.from_numpy(np.asarray(TinyImages()[index][0]) / 127.5 - 1)
    labels = torch.tensor([TinyImages()[index][1] for index in range(12)])
    inverted = model.invert(model.encode(frames), labels, inversion)
    for timestep in TIMESTEPS:
        gaussians = artifact.gaussians(timestep)
        for label in range(3):
            members = inverted[timestep][labels == label].double()
            variance, mean = torch.var_mean(members, dim=0, correction=1)
            torch.testing.assert_close(gaussians.mean[label].double(), mean, rtol=0, atol=2e-6)
            torch.testing.assert_close(gaussians.variance[label].double(), variance, rtol=0, atol=2e-6)
            assert int(gaussians.count[label]) == len(members) == 4


def test_artifact_is_complete_and_says_what_it_is(model: LatentDiffusion, tmp_path: Path) -> None:
    info = tiny_info(
        source={"name": "noise"}, producer="tests", model=ModelReference("a/b", "c" * 40), dtype="float32"
    )
    artifact = build_tiny(model, tmp_path / "artifact", info=info)
    assert dataclasses.replace(artifact.info, source={"name": "noise"}) == info
    assert artifact.info.source["name"] == "noise"
    assert Artifact.load(tmp_path / "artifact").info == artifact.info
    artifact.verify()


def test_fingerprint_of_the_source_tells_pixels_and_labels_alone(
    model: LatentDiffusion, tmp_path: Path
) -> None:
    class Inverted(TinyImages):
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            image, label = super().__getitem__(index)
            return image if index else image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), label

    def fingerprint(run: str, source: TinyImages, **options: Any) -> Any:
        return build_tiny(model, tmp_path / run / "artifact", source, **options).info.source["fingerprint"]

    same = {
        fingerprint("a", TinyImages()),
        fingerprint("b", TinyImages(), batch_size=5),
        fingerprint("c", TinyImages(), chunk_size=12),
    }
    others = {
        fingerprint("d", Inverted()),
        fingerprint("e", Relabelled([1, 0, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])),
    }
    assert len(same) == 1 and len(others) == 2 and not same & others


def test_counts_are_those_found(model: LatentDiffusion, tmp_path: Path) -> None:
    source = Relabelled([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 1])
    artifact = build_tiny(model, tmp_path / "artifact", source, tiny_info(counts=(9, 9, 9)))
    assert artifact.info.counts == (6, 4, 2)
    assert artifact.gaussians(400).count.tolist() == [6, 4, 2]


def test_means_and_variances_are_stored_in_half_precision(tiny_artifact: Path) -> None:
    stored = load_file(tiny_artifact / STATISTICS)
    assert {tensor.dtype for name, tensor in stored.items() if name != "count"} == {torch.float16}


@pytest.mark.parametrize(("batch_size", "chunk_size"), [(1, 12), (12, 12), (5, 7), (256, 2048), (3, 1)])
def test_batches_and_chunks_do_not_matter(
    batch_size: int, chunk_size: int, model: LatentDiffusion, tmp_path: Path
) -> None:
    expected = statistics_of(build_tiny(model, tmp_path / "expected"))
    found = build_tiny(
        model, tmp_path / "artifact", batch_size=batch_size, chunk_size=chunk_size, work=tmp_path / "other"
    )
    assert_close(statistics_of(found), expected)


def test_building_twice_gives_the_same_bytes(model: LatentDiffusion, tmp_path: Path) -> None:
    artifacts = [build_tiny(model, tmp_path / f"{run}" / "artifact") for run in range(2)]
    assert len({(artifact.folder / STATISTICS).read_bytes() for artifact in artifacts}) == 1
    assert artifacts[0].fingerprint == artifacts[1].fingerprint


def test_unreadable_image_is_named_and_can_be_mended(model: LatentDiffusion, tmp_path: Path) -> None:
    for index in range(12):
        image, label = TinyImages()[index]
        folder = tmp_path / "images" / f"{label}"
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{index:02d}.png")
    source = ImageFolder(str(tmp_path / "images"))
    broken = tmp_path / "images" / "2" / "08.png"
    data = broken.read_bytes()
    for damage in (data[: len(data) // 2], data[:20], b"", b"no image at all"):
        broken.write_bytes(damage)
        with pytest.raises(UnreadableImageError, match=r"image 10 .*08\.png") as caught:
            build_tiny(model, tmp_path / "artifact", source)
        assert str(broken) in str(caught.value) and not isinstance(caught.value, OSError)
        assert not (tmp_path / "artifact").exists()
    broken.write_bytes(data)
    artifact = build_tiny(model, tmp_path / "artifact", source)
    assert_close(statistics_of(artifact), statistics_of(build_tiny(model, tmp_path / "whole" / "artifact")))


@pytest.mark.parametrize("label", [3, -1, 100])
def test_labels_out_of_range_are_refused(label: int, model: LatentDiffusion, tmp_path: Path) -> None:
    labels = [0, 1, 2, 0, 1, label, 0, 1, 2, 0, 1, 2]
    with pytest.raises(ConfigError, match=rf"image 5 .*label {label}; accepted: 0 to 2"):
        build_tiny(model, tmp_path / "artifact", Relabelled(labels))


def test_labels_may_be_tensors(model: LatentDiffusion, tmp_path: Path) -> None:
    source = Relabelled([torch.tensor(index % 3) for index in range(12)])
    expected = statistics_of(build_tiny(model, tmp_path / "whole" / "artifact"))
    assert_close(statistics_of(build_tiny(model, tmp_path / "artifact", source)), expected, 0)


@pytest.mark.parametrize(("last", "few"), [([2], r"\[2\]"), ([], r"\[2\]")])
def test_classes_of_fewer_than_two_images_are_refused(
    last: list[int], few: str, model: LatentDiffusion, tmp_path: Path
) -> None:
    labels = [*([0, 1] * 6)[: 12 - len(last)], *last]
    with pytest.raises(StatisticsError, match=few):
        build_tiny(model, tmp_path / "artifact", Relabelled(labels))
    assert not (tmp_path / "artifact").exists()


def test_latents_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.transformer.proj_out_2.bias.data[0] = float("nan")
    model = LatentDiffusion(pipeline.transformer, pipeline.vae, pipeline.scheduler, device="cpu")
    with pytest.raises(StatisticsError, match="not finite"):
        build_tiny(model, tmp_path / "artifact")


def _samples(seed: int = 0) -> InversionConfig:
    return InversionConfig(TIMESTEPS, num_inference_steps=10, latent="sample", seed=seed)


def test_posterior_samples_do_not_depend_on_the_batch(model: LatentDiffusion, tmp_path: Path) -> None:
    found = []
    for run, (batch_size, chunk_size) in enumerate([(1, 12), (12, 12), (5, 12), (3, 4)]):
        torch.manual_seed(run)
        artifact = build_tiny(
            model,
            tmp_path / f"{run}" / "artifact",
            info=tiny_info(inversion=_samples()),
            batch_size=batch_size,
            chunk_size=chunk_size,
        )
        found.append(statistics_of(artifact))
    for other in found[1:]:
        assert_close(other, found[0])


def test_posterior_samples_depend_on_the_seed(model: LatentDiffusion, tmp_path: Path) -> None:
    infos = [tiny_info(), *(tiny_info(inversion=_samples(seed)) for seed in (0, 0, 1))]
    mean, first, again, other = (
        statistics_of(build_tiny(model, tmp_path / f"{run}" / "artifact", info=info))["t-1.mean"]
        for run, info in enumerate(infos)
    )
    assert torch.equal(first, again)
    assert (first - mean).abs().max() > 1e-3 and (first - other).abs().max() > 1e-3


def test_posterior_samples_of_images_are_independent(model: LatentDiffusion, tmp_path: Path) -> None:
    """Twelve times one image: the mean has no variance, samples that share their noise have none either."""

    class OneImage(TinyImages):
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return super().__getitem__(0)[0], index % 3

    artifact = build_tiny(model, tmp_path / "a" / "artifact", OneImage())
    assert statistics_of(artifact)["t-1.variance"].max() < 1e-10
    artifact = build_tiny(model, tmp_path / "b" / "artifact", OneImage(), tiny_info(inversion=_samples()))
    assert (statistics_of(artifact)["t-1.variance"] > 1e-6).all()


def test_model_of_other_classes_is_refused(tmp_path: Path) -> None:
    """Label 2 of a model of two classes would be its null class."""
    with pytest.raises(ModelFormatError):
        build_tiny(tiny_model(num_classes=2), tmp_path / "artifact")


def test_colour_images_make_a_colour_artifact(tmp_path: Path) -> None:
    tiny_pipeline(channels=3).save_pretrained(tmp_path / "artifact" / "model")
    artifact = build_tiny(tiny_model(channels=3), tmp_path / "artifact", info=tiny_info(image_mode="RGB"))
    assert artifact.info.image_mode == "RGB" and artifact.info.classes == CLASSES
    artifact.verify()


def test_progress_goes_to_stderr_and_only_if_asked_for(
    model: LatentDiffusion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_tiny(model, tmp_path / "artifact")
    assert capsys.readouterr() == ("", "")
    build_tiny(model, tmp_path / "artifact", progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "12/12" in err


@pytest.mark.parametrize("size", ["batch_size", "chunk_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_one_are_refused(model: LatentDiffusion, tmp_path: Path, size: str, value: int) -> None:
    options: dict[str, Any] = {size: value}
    with pytest.raises(ConfigError, match=size):
        build_tiny(model, tmp_path / "artifact", **options)
