""""""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.datasets import ImageFolder

from d3hr_datasets import Artifact, InversionConfig, ModelReference
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixels import to_model_range
from d3hr_datasets.errors import ConfigError, ModelFormatError, StatisticsError, UnreadableImageError
from d3hr_datasets.sources.pixels import resize_and_crop
from tests.support.tampering import STATISTICS, truncate
from tests.support.tiny import CLASSES, TIMESTEPS, TinyImages, tiny_info, tiny_model, tiny_pipeline


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tiny_model()


class CountingImages(TinyImages):
    """The tiny images; notes which are read, and is killed when the image `fatal` is."""

    def __init__(self, fatal: int | None = None) -> None:
        self.fatal = fatal
        self.read: list[int] = []
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with self._lock:
            self.read.append(index)
        if index == self.fatal:
            raise KeyboardInterrupt("killed")
        return super().__getitem__(index)


class Relabelled(TinyImages):
    """The tiny images with other labels."""

    def __init__(self, labels: list[Any]) -> None:
        self.labels = labels

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return super().__getitem__(index)[0], self.labels[index]


def _build(
    model: LatentDiffusion,
    folder: Path,
    source: Any = None,
    info: Any = None,
    work: Path | None = None,
    **options: Any,
) -> Artifact:
    source = TinyImages() if source is None else source
    info = dataclasses.replace(info or tiny_info(), dtype="float32")
    options = {"batch_size": 3, "chunk_size": 4, "progress": False, **options}
    return build_artifact(
        source, model, folder, info or tiny_info(), work or folder.parent / "work", **options
    )


def _statistics(artifact: Artifact) -> dict[str, torch.Tensor]:
    return dict(load_file(artifact.folder / STATISTICS))


def _assert_close(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float = 1e-5
) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol)


@pytest.mark.parametrize("noise_timestep", ["source", "target"])
def test_statistics_are_those_of_all_inverted_latents(
    noise_timestep: Any, model: LatentDiffusion, tmp_path: Path
) -> None:
    inversion = InversionConfig(TIMESTEPS, num_inference_steps=10, noise_timestep=noise_timestep)
    artifact = _build(model, tmp_path / "artifact", info=tiny_info(inversion=inversion))
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
    artifact = _build(model, tmp_path / "artifact", info=info)
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
        return _build(model, tmp_path / run / "artifact", source, **options).info.source["fingerprint"]

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
    artifact = _build(model, tmp_path / "artifact", source, tiny_info(counts=(9, 9, 9)))
    assert artifact.info.counts == (6, 4, 2)
    assert artifact.gaussians(400).count.tolist() == [6, 4, 2]


def test_means_and_variances_are_stored_in_half_precision(tiny_artifact: Path) -> None:
    stored = load_file(tiny_artifact / STATISTICS)
    assert {tensor.dtype for name, tensor in stored.items() if name != "count"} == {torch.float16}


@pytest.mark.parametrize(("batch_size", "chunk_size"), [(1, 12), (12, 12), (5, 7), (256, 2048), (3, 1)])
def test_batches_and_chunks_do_not_matter(
    batch_size: int, chunk_size: int, model: LatentDiffusion, tmp_path: Path
) -> None:
    expected = _statistics(_build(model, tmp_path / "expected"))
    found = _build(
        model, tmp_path / "artifact", batch_size=batch_size, chunk_size=chunk_size, work=tmp_path / "other"
    )
    _assert_close(_statistics(found), expected)


def test_building_twice_gives_the_same_bytes(model: LatentDiffusion, tmp_path: Path) -> None:
    artifacts = [_build(model, tmp_path / f"{run}" / "artifact") for run in range(2)]
    assert len({(artifact.folder / STATISTICS).read_bytes() for artifact in artifacts}) == 1
    assert artifacts[0].fingerprint == artifacts[1].fingerprint


@pytest.mark.parametrize(("fatal", "finished"), [(0, 0), (5, 4), (9, 8), (11, 8)])
def test_killed_build_goes_on(fatal: int, finished: int, model: LatentDiffusion, tmp_path: Path) -> None:
    expected = _build(model, tmp_path / "whole" / "artifact")
    with pytest.raises(KeyboardInterrupt, match="killed"):
        _build(model, tmp_path / "artifact", CountingImages(fatal))
    assert not (tmp_path / "artifact" / "d3hr.json").exists()
    source = CountingImages()
    artifact = _build(model, tmp_path / "artifact", source)
    assert sorted(source.read) == list(range(finished, 12))
    assert (artifact.folder / STATISTICS).read_bytes() == (expected.folder / STATISTICS).read_bytes()
    assert artifact.fingerprint == expected.fingerprint


def test_finished_build_reads_no_image_again(model: LatentDiffusion, tmp_path: Path) -> None:
    _build(model, tmp_path / "artifact")
    source = CountingImages()
    _build(model, tmp_path / "artifact", source)
    assert source.read == []


def _chunks(work: Path) -> list[Path]:
    return sorted(path for path in work.iterdir() if path.suffix != ".json")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999, None])
def test_damaged_chunk_is_made_again(share: float | None, model: LatentDiffusion, tmp_path: Path) -> None:
    expected = _build(model, tmp_path / "artifact")
    before = (expected.folder / STATISTICS).read_bytes()
    chunks = _chunks(tmp_path / "work")
    assert len(chunks) == 3
    chunks[1].unlink() if share is None else truncate(chunks[1], share)
    source = CountingImages()
    artifact = _build(model, tmp_path / "artifact", source)
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
    _build(model, tmp_path / "artifact")
    source = CountingImages()
    _build(model, tmp_path / "artifact", source, tiny_info(**changes))
    assert sorted(source.read) == list(range(12))


def test_chunks_of_another_model_are_not_taken(model: LatentDiffusion, tmp_path: Path) -> None:
    _build(model, tmp_path / "artifact")
    pipeline = tiny_pipeline()
    pipeline.transformer.proj_out_2.bias.data += 0.1
    other = LatentDiffusion(pipeline.transformer, pipeline.vae, pipeline.scheduler, device="cpu")
    found = _statistics(_build(other, tmp_path / "artifact"))
    _assert_close(found, _statistics(_build(other, tmp_path / "fresh" / "artifact")), 0)


def test_chunks_of_other_labels_are_not_taken(model: LatentDiffusion, tmp_path: Path) -> None:
    class Targets(Relabelled):
        def __init__(self, targets: list[int]) -> None:
            super().__init__(targets)
            self.targets = targets

    _build(model, tmp_path / "artifact", Targets([0, 1, 2] * 4))
    artifact = _build(model, tmp_path / "artifact", Targets([0] * 8 + [1, 1, 2, 2]))
    assert artifact.info.counts == (8, 2, 2)


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
            _build(model, tmp_path / "artifact", source)
        assert str(broken) in str(caught.value) and not isinstance(caught.value, OSError)
        assert not (tmp_path / "artifact").exists()
    broken.write_bytes(data)
    artifact = _build(model, tmp_path / "artifact", source)
    _assert_close(_statistics(artifact), _statistics(_build(model, tmp_path / "whole" / "artifact")))


@pytest.mark.parametrize("label", [3, -1, 100])
def test_labels_out_of_range_are_refused(label: int, model: LatentDiffusion, tmp_path: Path) -> None:
    labels = [0, 1, 2, 0, 1, label, 0, 1, 2, 0, 1, 2]
    with pytest.raises(ConfigError, match=rf"image 5 .*label {label}; accepted: 0 to 2"):
        _build(model, tmp_path / "artifact", Relabelled(labels))


def test_labels_may_be_tensors(model: LatentDiffusion, tmp_path: Path) -> None:
    source = Relabelled([torch.tensor(index % 3) for index in range(12)])
    expected = _statistics(_build(model, tmp_path / "whole" / "artifact"))
    _assert_close(_statistics(_build(model, tmp_path / "artifact", source)), expected, 0)


@pytest.mark.parametrize(("last", "few"), [([2], r"\[2\]"), ([], r"\[2\]")])
def test_classes_of_fewer_than_two_images_are_refused(
    last: list[int], few: str, model: LatentDiffusion, tmp_path: Path
) -> None:
    labels = [*([0, 1] * 6)[: 12 - len(last)], *last]
    with pytest.raises(StatisticsError, match=few):
        _build(model, tmp_path / "artifact", Relabelled(labels))
    assert not (tmp_path / "artifact").exists()


def test_latents_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.transformer.proj_out_2.bias.data[0] = float("nan")
    model = LatentDiffusion(pipeline.transformer, pipeline.vae, pipeline.scheduler, device="cpu")
    with pytest.raises(StatisticsError, match="not finite"):
        _build(model, tmp_path / "artifact")


def _samples(seed: int = 0) -> InversionConfig:
    return InversionConfig(TIMESTEPS, num_inference_steps=10, latent="sample", seed=seed)


def test_posterior_samples_do_not_depend_on_the_batch(model: LatentDiffusion, tmp_path: Path) -> None:
    found = []
    for run, (batch_size, chunk_size) in enumerate([(1, 12), (12, 12), (5, 12), (3, 4)]):
        torch.manual_seed(run)
        artifact = _build(
            model,
            tmp_path / f"{run}" / "artifact",
            info=tiny_info(inversion=_samples()),
            batch_size=batch_size,
            chunk_size=chunk_size,
        )
        found.append(_statistics(artifact))
    for other in found[1:]:
        _assert_close(other, found[0])


def test_posterior_samples_depend_on_the_seed(model: LatentDiffusion, tmp_path: Path) -> None:
    infos = [tiny_info(), *(tiny_info(inversion=_samples(seed)) for seed in (0, 0, 1))]
    mean, first, again, other = (
        _statistics(_build(model, tmp_path / f"{run}" / "artifact", info=info))["t-1.mean"]
        for run, info in enumerate(infos)
    )
    assert torch.equal(first, again)
    assert (first - mean).abs().max() > 1e-3 and (first - other).abs().max() > 1e-3


def test_posterior_samples_of_images_are_independent(model: LatentDiffusion, tmp_path: Path) -> None:
    """Twelve times one image: the mean has no variance, samples that share their noise have none either."""

    class OneImage(TinyImages):
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return super().__getitem__(0)[0], index % 3

    artifact = _build(model, tmp_path / "a" / "artifact", OneImage())
    assert _statistics(artifact)["t-1.variance"].max() < 1e-10
    artifact = _build(model, tmp_path / "b" / "artifact", OneImage(), tiny_info(inversion=_samples()))
    assert (_statistics(artifact)["t-1.variance"] > 1e-6).all()


def test_model_of_other_classes_is_refused(tmp_path: Path) -> None:
    """Label 2 of a model of two classes would be its null class."""
    with pytest.raises(ModelFormatError):
        _build(tiny_model(num_classes=2), tmp_path / "artifact")


def test_colour_images_make_a_colour_artifact(tmp_path: Path) -> None:
    tiny_pipeline(channels=3).save_pretrained(tmp_path / "artifact" / "model")
    artifact = _build(tiny_model(channels=3), tmp_path / "artifact", info=tiny_info(image_mode="RGB"))
    assert artifact.info.image_mode == "RGB" and artifact.info.classes == CLASSES
    artifact.verify()


def test_progress_goes_to_stderr_and_only_if_asked_for(
    model: LatentDiffusion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _build(model, tmp_path / "artifact")
    assert capsys.readouterr() == ("", "")
    _build(model, tmp_path / "artifact", progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "12/12" in err


def test_small_images_are_framed_without_resizing() -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    cropped = resize_and_crop(Image.fromarray(pixels), 4, "L")
    assert cropped.dtype == torch.uint8 and np.array_equal(cropped[0].numpy(), pixels)
    found = to_model_range(cropped, 2)
    assert found.shape == (1, 8, 8) and found.dtype == torch.float32
    expected = torch.full((1, 8, 8), -1.0)
    expected[0, 2:6, 2:6] = torch.from_numpy(pixels / 127.5 - 1)
    torch.testing.assert_close(found, expected)
    assert found.min() == -1 and found.max() == 1


@pytest.mark.parametrize(("size", "seen"), [((40, 20), (10, 30)), ((20, 20), (0, 20)), ((80, 40), (20, 60))])
def test_centre_of_the_shorter_side_is_kept(size: tuple[int, int], seen: tuple[int, int]) -> None:
    """A ramp from left to right tells which columns are kept."""
    width, height = size
    ramp = np.tile(np.linspace(0, 255, width), (height, 1)).astype(np.uint8)
    for image, dim in ((Image.fromarray(ramp), 0), (Image.fromarray(ramp.T.copy()), 1)):
        found = resize_and_crop(image, 20, "L")[0].double().mean(dim=dim)
        first, last = (255 * edge / width for edge in seen)
        assert found.shape == (20,)
        assert float(found[0]) == pytest.approx(first, abs=8) and float(found[-1]) == pytest.approx(
            last, abs=8
        )


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "LA"])
def test_images_of_any_mode_are_converted(mode: str) -> None:
    image = Image.new("RGB", (6, 6), (255, 255, 255)).convert(mode)
    for wanted, channels in (("L", 1), ("RGB", 3)):
        found = resize_and_crop(image, 4, wanted)
        assert found.shape == (channels, 4, 4) and (found > 248).all()


@pytest.mark.parametrize("size", ["batch_size", "chunk_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_one_are_refused(model: LatentDiffusion, tmp_path: Path, size: str, value: int) -> None:
    options: dict[str, Any] = {size: value}
    with pytest.raises(ConfigError, match=size):
        _build(model, tmp_path / "artifact", **options)
