"""What measures a GPU, on a small model of the same layout and on the CPU; and what it says without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.nn.attention import SDPBackend, sdpa_kernel

from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.experiments.protocol_files import choose_protocol
from recipes.common.errors import RecipeError
from recipes.evaluate import gpu
from recipes.evaluate.dit_xl import make_transformer, make_vae, write_artifact


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu") / "artifact"
    transformer = make_transformer(num_layers=1, num_attention_heads=1, attention_head_dim=8)
    write_artifact(folder, transformer, make_vae(block_out_channels=(32,) * 4, layers_per_block=1))
    return folder


def test_generation_and_inversion_are_rated_by_what_the_model_computes(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "seconds_of", lambda work, device: (work(), 2.0)[1])
    model = LatentDiffusion.from_pretrained(artifact / "model", device="cpu")
    made = gpu.generation(model, [2], bound=1e9)["2 at a time"]
    assert made["images_per_second"] == 1.0
    with sdpa_kernel(SDPBackend.MATH):  # fused attention of the CPU is not counted
        once = gpu.count_operations(lambda: model.network(*_one(model)))
        decoded = gpu.count_operations(lambda: model.vae.decode(torch.zeros(1, *model.latent_shape)))
        encoded = gpu.count_operations(lambda: model.vae.encode(torch.zeros(1, 3, 256, 256)))
    settings = gpu.SETTINGS.inversion(model.schedule)
    passes = model.forward_passes(gpu.SETTINGS.decode(settings))
    assert passes == 8
    assert made["utilisation"] == pytest.approx(2 * (passes * once + decoded) / 2.0 / 1e9)
    inverted = gpu.inverting(model, [3], bound=1e9)["3 at a time"]
    assert inverted["images_per_second"] == 1.5
    calls = _count_calls(model)
    assert inverted["utilisation"] == pytest.approx(3 * (calls * once + encoded) / 2.0 / 1e9)


def _one(model: LatentDiffusion) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    label = torch.zeros(1, dtype=torch.int64)
    return torch.zeros(1, *model.latent_shape), label, label


def _count_calls(model: LatentDiffusion) -> int:
    """Return how often the network really runs to invert one image."""
    calls = []
    handle = model.network.register_forward_hook(lambda *_: calls.append(1))
    settings = gpu.SETTINGS.inversion(model.schedule)
    model.invert(torch.zeros(1, *model.latent_shape), torch.zeros(1, dtype=torch.int64), settings)
    handle.remove()
    return len(calls)


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Forget the precision of a training, which Accelerate keeps for all others of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerator")
def test_trainings_are_rated(artifact: Path, tmp_path: Path) -> None:
    assert gpu.adapter_training(artifact / "model", tmp_path, 4, 4, 256) > 0
    changes = {"labels": "hard", "epochs": 1, "image_size": 32, "batch_size": 10, "student": "convnet3"}
    protocol = choose_protocol("rded", "cifar10", 10, changes).settings()
    assert gpu.student_training(protocol, 20, torch_compile=False) > 0
    assert gpu.student_operations(protocol) > 3 * 2 * 32 * 32 * 3 * 9 * 128  # its first layer alone
    assert gpu.whole_set(artifact, tmp_path / "cache", 1, 2, torch_compile=False) > 0
    ways = gpu.ways_to_make_a_set(artifact, tmp_path / "ways", 1, 2, batch_size=1)
    assert len(ways) == 3 and all(found["images_per_second"] > 0 for found in ways.values())


def test_the_bound_is_that_of_matrices() -> None:
    assert gpu.matmul_rate(torch.device("cpu"), side=64) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu", "--work", str(tmp_path)])
    with pytest.raises(SystemExit, match="no GPU here") as error:
        gpu.main()
    assert isinstance(error.value.__cause__, RecipeError)
