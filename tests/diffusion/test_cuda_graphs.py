"""CUDA graphs, imitated: which batches are filled up, what is written over, and where none are recorded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from d3hr_datasets import DecodeConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.placement import Placement
from d3hr_datasets.diffusion.recorded_sizes import RecordedSizes
from tests.support.tiny import tiny_model

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> LatentDiffusion:
    """Return a model that would record graphs: its network answers in the same memory each time."""
    model = tiny_model()
    monkeypatch.setattr(Placement, "has_cuda_graphs", True)
    monkeypatch.setenv("CXX", "true")  # a compiler to be found
    forward = model.network.forward
    memory: dict[int, torch.Tensor] = {}

    def compiled(**options: Any) -> None:
        assert options == {"mode": "reduce-overhead"}

        def run(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            answer = forward(latents, *args, **kwargs)
            kept = memory.setdefault(len(latents), torch.empty_like(answer.sample))
            for other in memory.values():
                other.fill_(float("nan"))  # graphs share their memory
            answer.sample = kept.copy_(answer.sample)
            return answer

        monkeypatch.setattr(model.network, "forward", run)

    monkeypatch.setattr(model.network, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    model.compile()
    return model


@pytest.mark.parametrize("config", [DecodeConfig(400, 10, 1.0), DecodeConfig(400, 10, 2.0)])
def test_the_last_batch_is_filled_up_and_latents_are_the_same(
    config: DecodeConfig, graphs: LatentDiffusion
) -> None:
    sizes: list[int] = []
    graphs.network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(len(LABELS), *graphs.latent_shape, generator=generator)
    made = graphs.denoise(latents, LABELS, config, batch_size=4)
    assert set(sizes) == {4 if config.guidance_scale == 1 else 8}  # batches of 4 and 3
    expected = tiny_model().denoise(latents, LABELS, config, batch_size=4)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


def test_few_sizes_are_recorded_and_none_that_was_too_large() -> None:
    sizes = RecordedSizes()
    assert [sizes.padded(size) for size in (64, 33, 64, 100, 70, 7, 5, 1)] == [64, 64, 64, 100, 100, 7, 7, 1]
    assert sizes.padded(50) == 64  # the smallest that will do
    full = RecordedSizes()
    assert [full.padded(size) for size in (9, 4, 2, 1)] == [9, 4, 2, 1]  # halved until it fits


@pytest.mark.parametrize(
    ("device", "cpu_offload", "wanted", "expected"),
    [
        ("cuda", False, True, True),
        ("cuda", False, False, False),
        ("cuda", True, True, False),  # weights that move are not where a graph reads them
        ("mps", False, True, False),
        ("cpu", False, True, False),
    ],
)
def test_graphs_are_recorded_on_cuda_alone(
    device: str, cpu_offload: bool, wanted: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, found = tiny_model(), []
    model.placement.device, model.placement.is_offloaded = torch.device(device), cpu_offload
    monkeypatch.setenv("CXX", "true")
    monkeypatch.setattr(model.network, "compile", lambda **options: found.append(options))
    model.compile(cuda_graphs=wanted)
    assert found == [{"mode": "reduce-overhead"} if expected else {}]
    assert (model.denoiser.recorded is not None) == expected and model.denoiser.is_compiled
