"""In which layout convolutions run: another one for kernels that ask for it, with the same numbers."""

from __future__ import annotations

import pytest
import torch

from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.numerics.devices import convolution_layout
from tests.support.tiny import tiny_pipeline


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cuda", torch.float16, torch.channels_last),
        ("cuda:1", torch.bfloat16, torch.channels_last),
        ("cuda", torch.float32, torch.preserve_format),
        ("cpu", torch.bfloat16, torch.preserve_format),
    ],
)
def test_only_half_precision_on_cuda_has_channels_last(
    device: str, dtype: torch.dtype, expected: object
) -> None:
    assert convolution_layout(torch.device(device), dtype) is expected


def test_images_do_not_depend_on_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for layout in (torch.preserve_format, torch.channels_last):
        monkeypatch.setattr(
            "d3hr_datasets.diffusion.placement.convolution_layout", lambda *_, layout=layout: layout
        )
        parts = tiny_pipeline()
        model = LatentDiffusion(parts.transformer, parts.vae, parts.scheduler, device="cpu")
        weight = model.vae.decoder.conv_in.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == (layout is torch.channels_last)
        latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
        found.append(model.decode(latents))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
