"""Statistics in eight bits, alone and in artifacts; and what a thousand classes cost to download."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from safetensors.torch import load_file

from d3hr_datasets import Artifact, ClassGaussians, D3HRDataset, D3HRImageNet, InversionConfig
from d3hr_datasets.artifact.d3hr_json import METADATA, STATISTICS
from d3hr_datasets.artifact.gaussians import ClassModes
from d3hr_datasets.artifact.quantization import dequantize, quantize
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.errors import ArtifactFormatError, StatisticsError
from tests.support.hub_server import HubServer
from tests.support.tampering import change_statistics
from tests.support.tiny import tiny_info, tiny_pipeline

SHAPE = (3, 3, 4, 4)


@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0, 30.0, 1e6])
def test_nothing_moves_by_more_than_half_a_step(size: float) -> None:
    values = size * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    stored, scale = quantize("mean", values)
    assert stored.dtype == torch.int8 and scale.shape == (3, 3, 1, 1)
    assert ((dequantize("mean", stored, scale) - values).abs() <= 0.501 * scale).all()
    stored, scale = quantize("variance", values.square())
    deviation = dequantize("variance", stored, scale).sqrt()
    assert stored.dtype == torch.uint8
    assert ((deviation - values.abs()).abs() <= 0.501 * scale).all()


@pytest.mark.parametrize("name", ["mean", "variance"])
def test_zeros_stay_zeros(name: str) -> None:
    assert torch.equal(dequantize(name, *quantize(name, torch.zeros(SHAPE))), torch.zeros(SHAPE))


@pytest.fixture
def quantized(tmp_path: Path) -> Artifact:
    """Return an artifact in eight bits, with modes and a model."""
    generator = torch.Generator().manual_seed(0)
    mean, variance = (torch.randn(SHAPE, generator=generator), torch.rand(SHAPE, generator=generator))
    means = torch.randn(3, 2, 3, 4, 4, generator=generator)
    tiny_pipeline().save_pretrained(tmp_path / "artifact" / "model")
    info = tiny_info(dtype="int8", num_modes=2, inversion=InversionConfig((400,), num_inference_steps=10))
    modes = ClassModes(means, variance / 2, torch.full((3, 2), 2))
    return Artifact.save(
        tmp_path / "artifact", info, {400: ClassGaussians(mean, variance, torch.full((3,), 4))}, {400: modes}
    )


def test_artifact_in_eight_bits_is_read_by_class(quantized: Artifact, tmp_path: Path) -> None:
    stored = load_file(quantized.folder / STATISTICS)
    assert stored["t400.modes.mean"].dtype == torch.int8
    assert stored["t400.modes.mean.scale"].shape == (3, 2, 3, 1, 1)
    assert stored["t400.variance"].dtype == torch.uint8
    whole, modes = quantized.gaussians(400), quantized.modes(400)
    for label in range(3):
        assert torch.equal(quantized.gaussians(400, label).variance[0], whole.variance[label])
        assert torch.equal(quantized.modes(400, label).mean[0], modes.mean[label])
    assert len(D3HRDataset(quantized, tmp_path / "root", 2, device="cpu")[0][0].tobytes()) == 14 * 14
    quantized.verify()


def test_wrong_steps_are_refused(quantized: Artifact) -> None:
    change_statistics(quantized.folder, **{"t400_mean_scale": torch.full((3, 3, 1, 1), torch.nan)})
    with pytest.raises(StatisticsError, match="finite"):
        Artifact.load(quantized.folder).gaussians(400)
    change_statistics(quantized.folder, **{"t400_mean_scale": torch.ones(3, 3, 4, 1)})
    with pytest.raises(ArtifactFormatError, match=r"t400\.mean\.scale"):
        Artifact.load(quantized.folder).gaussians(400)
    change_statistics(quantized.folder, **{"t400_mean_scale": None})
    with pytest.raises(ArtifactFormatError, match=r"t400\.mean\.scale"):
        Artifact.load(quantized.folder).gaussians(400)


def save_imagenet(folder: Path, dtype: str) -> None:
    """Save 1,000 classes of 4 x 32 x 32 latents with an untrained model of 256 x 256 images."""
    class_list = ClassList.packaged("imagenet")
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=1,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        sample_size=32,
        patch_size=8,
        num_embeds_ada_norm=1000,
    )
    vae = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=4,
        sample_size=256,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    DiTPipeline(transformer, vae, DDIMScheduler()).save_pretrained(folder / "model")
    (folder / "preview").mkdir()
    (folder / "preview" / "train.parquet").write_bytes(bytes(10**6))  # which nobody needs
    shape = (1000, 4, 32, 32)
    gaussians = ClassGaussians(torch.randn(shape), torch.rand(shape), torch.full((1000,), 1300))
    info = tiny_info(
        name="imagenet",
        classes=class_list.names,
        wnids=class_list.wnids,
        counts=(1300,) * 1000,
        image_size=256,
        image_mode="RGB",
        padding=0,
        latent_shape=(4, 32, 32),
        dtype=dtype,
        inversion=InversionConfig((400,), num_inference_steps=10),
    )
    Artifact.save(folder, info, {400: gaussians})


@pytest.mark.parametrize(("dtype", "megabytes"), [("float16", 16.5), ("int8", 8.3)])
def test_last_class_of_a_thousand_needs_statistics_and_model_only(
    dtype: str, megabytes: float, hub: HubServer, tmp_path: Path
) -> None:
    save_imagenet(tmp_path / "source", dtype)
    hub.add_folder("org/d3hr-imagenet", tmp_path / "source")
    dataset = D3HRImageNet(
        tmp_path / "root", ipc=10, artifact="org/d3hr-imagenet", classes=[999], device="cpu"
    )
    image, label = dataset[0]
    assert (image.size, label, dataset.class_labels.tolist()) == ((256, 256), 0, [999])
    model = sum(path.stat().st_size for path in (tmp_path / "source" / "model").rglob("*") if path.is_file())
    description = (tmp_path / "source" / METADATA).stat().st_size
    statistics = (tmp_path / "source" / STATISTICS).stat().st_size
    sent = sum(hub.sent.values())
    print(f"{dtype}: {sent} bytes; statistics {statistics}, description {description}, model {model}")
    assert statistics <= megabytes * 1e6
    assert sent <= statistics + description + model + 20_000  # lists of files
