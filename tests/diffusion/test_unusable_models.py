"""Models of every kind are as large as models are, and such that nothing is left out that they need."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from d3hr_datasets import DecodeConfig
from d3hr_datasets.diffusion.kinds.table import KINDS
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.untrusted_encoders import count_encoder_parameters
from d3hr_datasets.diffusion.untrusted_models import count_parameters
from d3hr_datasets.errors import ConfigError, ModelFormatError
from tests.support.kinds import Kinds
from tests.support.real_configs import ENCODERS, NETWORKS
from tests.support.tiny_kinds import PROMPTS


def changed(kinds: Kinds, name: str, tmp_path: Path, part: str, changes: dict[str, Any]) -> Path:
    """Return the folder of a copy of a model with other settings of a part."""
    folder = Path(shutil.copytree(kinds.folder(name), tmp_path / "model"))
    path = folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def load(folder: Path) -> LatentDiffusion:
    return LatentDiffusion.from_pretrained(folder, device="cpu", prompts=PROMPTS)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_people_use_are_accepted(name: str, tmp_path: Path) -> None:
    kind, config, expected = NETWORKS[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert count_parameters(getattr(diffusers, kind), tmp_path) == pytest.approx(expected, rel=1e-3)
    known = {known.network[1] for known in KINDS} | {known.vae for known in KINDS}
    assert kind in known


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_that_people_use_are_accepted(name: str, tmp_path: Path) -> None:
    kind, config, expected = ENCODERS[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert count_encoder_parameters(kind, tmp_path) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "part", "changes"),
    [
        ("sd-1", "unet", {"layers_per_block": [60_000, 1]}),
        ("sdxl", "unet", {"transformer_layers_per_block": [1, 60_000]}),
        ("sd-1", "unet", {"block_out_channels": [8] * 9}),
        ("sd-1", "unet", {"block_out_channels": [60_000, 60_000]}),
        ("sd-3", "transformer", {"pos_embed_max_size": 513}),
        ("sd-3", "transformer", {"pos_embed_max_size": 512, "attention_head_dim": 60_000}),
        ("sd-3", "transformer", {"pos_embed_max_size": "x"}),
        ("sd-3", "transformer", {"num_layers": 60_000}),
        ("sana", "transformer", {"sample_size": 1024, "patch_size": 1, "attention_head_dim": 64}),
        ("sana", "vae", {"encoder_layers_per_block": [60_000, 1]}),
        ("sana", "vae", {"decoder_layers_per_block": [1, 17]}),
        ("flux-dev", "transformer", {"num_single_layers": 97}),
        ("flux-dev", "transformer", {"num_attention_heads": 60_000}),
        ("pixart-sigma", "transformer", {"caption_channels": 10**9}),
        ("pixart-sigma", "transformer", {"quantization_config": {}}),
    ],
)
def test_networks_are_as_large_as_their_weights(
    name: str, part: str, changes: dict[str, Any], kinds: Kinds, tmp_path: Path
) -> None:
    folder = changed(kinds, name, tmp_path, part, changes)
    start = time.monotonic()
    with pytest.raises(ModelFormatError):
        load(folder)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "sd-1",
            {"time_cond_proj_dim": 8},
            "Stable Diffusion 1.x and 2.x with the UNet's time_cond_proj_dim = 8",
        ),
        ("sd-1", {"class_embed_type": "identity"}, "class_embed_type = 'identity'; accepted: null"),
        ("sd-1", {"num_class_embeds": 10}, "num_class_embeds = 10; accepted: null"),
        ("sd-1", {"in_channels": 9}, "takes 9 latent channels, the VAE makes 4"),
        ("sd-1", {"out_channels": 3}, "takes 4 channels and makes 3; accepted"),
        (
            "sdxl",
            {"time_cond_proj_dim": 8},
            "XL with the UNet's addition_embed_type = 'text_time' and time_cond",
        ),
        ("sana", {"guidance_embeds": True}, "SANA with the transformer's guidance_embeds"),
        ("flux-dev", {"in_channels": 20}, "takes 5 latent channels, the VAE makes 4"),
    ],
)
def test_networks_that_need_other_inputs_are_refused(
    name: str, changes: dict[str, Any], message: str, kinds: Kinds
) -> None:
    """Looked at apart from weights, which would not fit the settings."""
    model = kinds.model(name)
    network = model.network
    before = dict(network.config)
    network.register_to_config(**changes)
    try:
        with pytest.raises(ModelFormatError, match=message):
            LatentDiffusion(
                network, model.vae, model.schedule, "cpu", kind=model.kind, conditioning=model.conditioning
            )
    finally:
        network.register_to_config(**before)


def test_an_unsupported_folder_is_refused_by_name(kinds: Kinds, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kinds.folder("sd-1"), tmp_path / "model"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "WanPipeline"}))
    accepted = ".*".join(pipeline for kind in KINDS for pipeline in kind.pipelines)
    with pytest.raises(
        ModelFormatError, match=rf"of 'WanPipeline', which is not supported; accepted: .*{accepted}"
    ):
        load(folder)


@pytest.mark.parametrize(
    "lost", ["unet", "text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer"]
)
def test_missing_parts_are_named(lost: str, kinds: Kinds, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kinds.folder("sd-1"), tmp_path / "model"))
    path = folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{Path(lost).parts[0]}.* is missing: .*text_encoder/, tokenizer/"
    ):
        load(folder)


def test_guidance_of_flux_is_told_and_not_doubled(kinds: Kinds) -> None:
    """dev takes the scale as an input, and is asked once; schnell has none, and is asked twice."""
    for name, batches in (("flux-dev", {2}), ("flux-schnell", {4})):
        model = kinds.model(name)
        asked: list[tuple[int, Any]] = []

        def note(module: Any, args: Any, kwargs: Any, asked: list[tuple[int, Any]] = asked) -> None:
            asked.append((len(args[0]), kwargs["guidance"]))

        handle = model.network.register_forward_pre_hook(note, with_kwargs=True)
        config = DecodeConfig(0.5, 4, 3.5, grid="flow")
        model.denoise(torch.zeros(2, *model.latent_shape), torch.tensor([0, 1]), config)
        handle.remove()
        assert {size for size, _ in asked} == batches
        told = [guidance for _, guidance in asked if guidance is not None]
        assert len(told) == (len(asked) if name == "flux-dev" else 0)
        assert all(guidance.tolist() == [3.5, 3.5] for guidance in told)


def test_a_class_without_a_prompt_is_named(kinds: Kinds) -> None:
    model = kinds.model("sd-1")
    with pytest.raises(ConfigError, match=r"prompts of class labels \[3\] have not been encoded"):
        model.denoise(
            torch.zeros(1, *model.latent_shape),
            torch.tensor([3]),
            DecodeConfig(101, 10, 1.0, grid="scheduler"),
        )
