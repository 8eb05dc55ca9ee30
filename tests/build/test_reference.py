"""The settings of D3HR's own code: `d3hr build --reference` against its arithmetic, written out here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision import transforms

from d3hr_datasets import Artifact, ArtifactInfo, D3HRDataset, DecodeConfig, InversionConfig
from d3hr_datasets.build.reference_import import as_reference, imported_inversion
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.noise_schedule import BetaSchedule
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.resizing import resize_and_crop
from tests.cli.test_cli import fail, succeed
from tests.support.tiny import CLASSES, TinyImages, tiny_info, tiny_model, tiny_pipeline

DOCS = Path(__file__).parents[2] / "docs" / "reference-differences.md"
STRIDE = 20


def _reference_info() -> ArtifactInfo:
    return as_reference(tiny_info(inversion=InversionConfig((200, 400), 10)))


def _guided(model: LatentDiffusion, latents: torch.Tensor, labels: torch.Tensor, t: int) -> torch.Tensor:
    times = torch.full((len(latents),), t)
    null = torch.full_like(labels, model.num_classes)
    with torch.inference_mode():
        by_class, by_none = (
            model.network(latents, timestep=times, class_labels=label).sample for label in (labels, null)
        )
    guided: torch.Tensor = by_none + 4 * (by_class - by_none)
    return guided


def _alphas(model: LatentDiffusion) -> torch.Tensor:
    assert isinstance(model.schedule, BetaSchedule)
    alphas: torch.Tensor = model.schedule.scheduler.alphas_cumprod
    return alphas


def _step(x: torch.Tensor, noise: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    return end.sqrt() * (x - (1 - start).sqrt() * noise) / start.sqrt() + (1 - end).sqrt() * noise


def test_inversion_starts_at_zero_and_asks_at_the_target() -> None:
    model, labels = tiny_model(), torch.tensor([0, 2])
    latents = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    config = imported_inversion((480, 600), 1000)
    calls: list[None] = []
    hook = model.network.register_forward_pre_hook(lambda *_: calls.append(None))
    found = model.invert(latents, labels, config)
    hook.remove()
    assert len(calls) == 30  # one fewer than from below timestep 0
    alphas, expected = _alphas(model), latents
    for target in range(STRIDE, 620, STRIDE):
        noise = _guided(model, expected, labels, target)
        expected = _step(expected, noise, alphas[target - STRIDE], alphas[target])
        if target in found:
            torch.testing.assert_close(found[target], expected)
    assert config.latent == "sample" and found.keys() == {480, 600}


def test_denoising_starts_one_step_above_and_ends_at_one() -> None:
    model, labels = tiny_model(), torch.tensor([1, 0])
    latents = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    decode = _reference_info().decode
    alphas, expected = _alphas(model), latents
    for t in range(int(decode.timestep) + STRIDE, -1, -STRIDE):
        expected = _step(expected, _guided(model, expected, labels, t), alphas[t], alphas[max(1, t - STRIDE)])
    torch.testing.assert_close(model.denoise(latents, labels, decode), expected, rtol=1e-4, atol=1e-5)
    plain = DecodeConfig(decode.timestep, 50, 4.0, reference_off_by_one=True)
    assert not torch.allclose(model.denoise(latents, labels, plain), expected, atol=1e-3)


def test_images_are_resized_as_by_torchvision_on_pillow() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (37, 50, 3), generator=generator).to(torch.uint8)
    image = Image.fromarray(pixels.numpy())
    expected = transforms.Compose(
        [transforms.Resize(16), transforms.CenterCrop(16), transforms.PILToTensor()]
    )(image)
    assert torch.equal(resize_and_crop(image, 16, "RGB", "bilinear"), expected)
    assert not torch.equal(resize_and_crop(image, 16, "RGB"), expected)


def test_what_is_not_of_the_reference_keeps_its_name() -> None:
    inversion, decode = InversionConfig((600,)), DecodeConfig(600)
    assert not {"first_timestep", "resizing"} & inversion.to_dict().keys()
    assert "reference_last_step" not in decode.to_dict()
    for config in (imported_inversion((600,), 1000), _reference_info().decode):
        assert type(config).from_dict(config.to_dict()) == config
    info = _reference_info()
    assert type(info).from_dict(info.to_dict()) == info
    with pytest.raises(ConfigError, match="before first_timestep"):
        InversionConfig((-1, 600), first_timestep=0)


def test_build_has_one_option_for_all_of_it(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    for index in range(12):
        image, label = TinyImages()[index]
        folder = tmp_path / "images" / CLASSES[label].replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        image.resize((20, 24)).save(folder / f"{index}.png")
    arguments = [
        "build",
        tmp_path / "images",
        "--model",
        tmp_path / "model",
        "--output",
        tmp_path / "out",
        "--class-order",
        "same",
        "--timestep",
        400,
        "--device",
        "cpu",
        "--reference",
    ]
    assert "--reference sets what --latent, --modes would" in fail(
        1, *arguments, "--modes", 2, "--latent", "mean"
    )
    succeed(*arguments, "--seed", 3)
    info = Artifact.load(tmp_path / "out").info
    assert info.inversion == imported_inversion((400,), 1000, seed=3)
    assert info.decode == as_reference(info).decode and info.num_modes == 1
    dataset = D3HRDataset(tmp_path / "out", tmp_path / "cache", ipc=1, device="cpu")
    assert dataset[0][0].size == (16, 16)
    snippet = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert snippet is not None
    names: dict[str, Any] = {}
    exec(snippet[1].replace('"my-set"', repr(str(tmp_path / "out"))), names)
    documented = names["dataset"]
    assert documented.decode == info.decode and documented.sampling.skewness_weight == 0.1
    assert documented.transform(dataset[0][0]).size == (224, 224)
