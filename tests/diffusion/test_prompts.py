"""Prompts are read by the model's own pipeline, once, and what reads them is gone afterwards."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import DecodeConfig, InversionConfig
from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.diffusion.kinds.table import kind_of
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.prompts import encode_prompts
from d3hr_datasets.errors import ConfigError, MissingExtraError
from tests.support.kinds import Kinds
from tests.support.plain_loops import encode
from tests.support.tiny_kinds import NEGATIVE, PIPELINES, PROMPTS

WITH_PROMPTS = [name for name in PIPELINES if not name.startswith("dit")]


def encoded(kinds: Kinds, name: str, prompts: dict[int, str], negative: str | None = None) -> Any:
    folder = kinds.folder(name)
    kind = kind_of(json.loads((folder / "model_index.json").read_text()), folder)
    return encode_prompts(kind, folder, prompts, negative, 3)


def denoise(model: LatentDiffusion, guidance_scale: float) -> torch.Tensor:
    schedule = model.schedule
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    config = DecodeConfig(schedule.default_time(10), 10, guidance_scale, grid=schedule.grid_kind)
    return model.denoise(latents, torch.tensor([0, 2]), config)


def _leaves(condition: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of a network's inputs by name, without those that do not depend on prompts."""
    found: dict[str, torch.Tensor] = {}
    for name, value in condition.items():
        found |= _leaves(value) if isinstance(value, dict) else {name: value}
    fixed = {"txt_ids", "time_ids", "resolution", "aspect_ratio"}
    return {name: value for name, value in found.items() if name not in fixed}


@pytest.mark.parametrize("negative", [None, NEGATIVE])
@pytest.mark.parametrize("name", WITH_PROMPTS)
def test_embeddings_are_those_of_the_pipeline(name: str, negative: str | None, kinds: Kinds) -> None:
    found = encoded(kinds, name, PROMPTS, negative)
    with torch.no_grad():
        expected, other = (
            _leaves(part) for part in encode(kinds.pipeline(name), list(PROMPTS.values()), negative)
        )
    for label in PROMPTS:
        assert found.embeddings[label].keys() == expected.keys()
        for key, values in expected.items():
            torch.testing.assert_close(found.embeddings[label][key], values[label : label + 1])
    assert found.negative is not None and found.negative.keys() == other.keys()
    for key, values in other.items():
        torch.testing.assert_close(found.negative[key], values[:1])
    assert not torch.equal(*(found.embeddings[label]["encoder_hidden_states"] for label in (0, 2)))


def test_more_prompts_than_are_read_at_a_time(kinds: Kinds) -> None:
    prompts = {label: f"a photo of {label} cats" for label in range(40)}
    found = encoded(kinds, "sd-1", prompts)
    alone = encoded(kinds, "sd-1", {33: prompts[33]})
    assert set(found.embeddings) == set(prompts)
    torch.testing.assert_close(found.embeddings[33], alone.embeddings[33])


def test_classes_that_are_not_in_use_are_not_encoded(kinds: Kinds) -> None:
    model = LatentDiffusion.from_pretrained(
        kinds.folder("sd-1"), device="cpu", prompts={2: PROMPTS[2]}, num_classes=3
    )
    assert isinstance(model.conditioning, PromptEmbeddings)
    assert set(model.conditioning.embeddings) == {2} and model.num_classes == 3
    config = DecodeConfig(401, 50, 1.0, grid="scheduler")
    latents = torch.zeros(1, *model.latent_shape)
    all_of_them = kinds.model("sd-1").denoise(latents, torch.tensor([2]), config)
    torch.testing.assert_close(model.denoise(latents, torch.tensor([2]), config), all_of_them)
    with pytest.raises(ConfigError, match=r"class labels \[0\] have not been encoded"):
        model.denoise(latents, torch.tensor([0]), config)


@pytest.mark.parametrize("name", ["sd-3", "sana"])
def test_encoders_are_gone_once_prompts_are_read(
    name: str, kinds: Kinds, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    import transformers

    kinds.folder(name)
    alive: list[Any] = []
    before = transformers.PreTrainedModel.from_pretrained.__func__

    def remember(cls: Any, *args: Any, **options: Any) -> Any:
        encoder = before(cls, *args, **options)
        alive.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(remember))
    gc.disable()  # they do not wait for it
    try:
        model = LatentDiffusion.from_pretrained(kinds.folder(name), device="cpu", prompts=PROMPTS)
        assert len(alive) == {"sd-3": 3, "sana": 1}[name]
        assert not [reference for reference in alive if reference() is not None]
    finally:
        gc.enable()
    assert model.num_classes == 3


@pytest.mark.parametrize("name", ["sd-1", "sdxl", "pixart-sigma", "sd-3", "sana", "flux-schnell"])
def test_the_negative_prompt_changes_guidance_alone(name: str, kinds: Kinds) -> None:
    without, model = kinds.model(name), kinds.model(name, NEGATIVE)
    assert torch.equal(denoise(model, 1.0), denoise(without, 1.0))
    assert (denoise(model, 3.0) - denoise(without, 3.0)).abs().max() > 1e-3


def test_a_network_that_takes_the_scale_of_guidance_has_no_use_for_a_negative_prompt(kinds: Kinds) -> None:
    model = kinds.model("flux-dev")
    assert (denoise(model, 3.0) - denoise(model, 1.0)).abs().max() > 1e-3
    with pytest.raises(ConfigError, match=r"FLUX.*negative prompt.*leave it out"):
        kinds.model("flux-dev", NEGATIVE)


@pytest.mark.parametrize("name", WITH_PROMPTS)
def test_a_prompt_is_part_of_the_fingerprint(name: str, kinds: Kinds) -> None:
    known = kinds.model(name).inversion_fingerprint
    for prompts, same in ((PROMPTS, True), ({**PROMPTS, 1: "a photo of a wasp"}, False)):
        model = LatentDiffusion.from_pretrained(kinds.folder(name), device="cpu", prompts=prompts)
        assert (model.inversion_fingerprint == known) == same


def test_embeddings_that_are_given_need_no_encoders(kinds: Kinds, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kinds.folder("sd-3"), tmp_path / "model"))
    conditioning = kinds.model("sd-3").conditioning
    for part in folder.glob("t*er*"):
        if part.name.startswith(("text_encoder", "tokenizer")):
            shutil.rmtree(part)
    model = LatentDiffusion.from_pretrained(folder, device="cpu", conditioning=conditioning)
    assert model.inversion_fingerprint == kinds.model("sd-3").inversion_fingerprint


def test_prompts_and_labels_are_not_taken_for_each_other(kinds: Kinds) -> None:
    with pytest.raises(ConfigError, match=r"kind DiT, which takes class labels; leave out the prompts"):
        LatentDiffusion.from_pretrained(kinds.folder("dit"), device="cpu", prompts=PROMPTS)
    with pytest.raises(ConfigError, match=r"takes a prompt for each class; give some: --prompt"):
        LatentDiffusion.from_pretrained(kinds.folder("sd-1"), device="cpu")


@pytest.mark.parametrize("library", ["transformers", "sentencepiece", "google.protobuf"])
def test_a_missing_library_is_named(library: str, kinds: Kinds, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kinds.folder("pixart-sigma")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"reading prompts for PixArt.*{library}.*extra 'text'"):
        LatentDiffusion.from_pretrained(folder, device="cpu", prompts=PROMPTS)


def test_models_of_class_labels_need_none_of_them(kinds: Kinds) -> None:
    """In a process of its own, in which the libraries cannot be imported."""
    program = f"""
import sys
for name in ("transformers", "tokenizers", "sentencepiece", "peft"):
    sys.modules[name] = None
import torch
from d3hr_datasets import DecodeConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
for name in ({str(kinds.folder("dit"))!r}, {str(kinds.folder("dit-flow"))!r}):
    model = LatentDiffusion.from_pretrained(name, device="cpu")
    flow = model.schedule.grid_kind == "flow"
    config = DecodeConfig(0.6 if flow else 600, 10, 2.0, grid=model.schedule.grid_kind)
    images = model.decode(model.denoise(torch.zeros(1, 4, 8, 8), torch.tensor([1]), config))
print(tuple(images.shape))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "(1, 3, 16, 16)\n"


def test_reading_prompts_leaves_the_settings_of_its_libraries(
    kinds: Kinds, capfd: pytest.CaptureFixture[str]
) -> None:
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    def settings() -> list[Any]:
        both = (of_diffusers, of_transformers)
        return [(one.get_verbosity(), one.is_progress_bar_enabled()) for one in both]

    kinds.folder("sd-3-without-t5")
    before, state = settings(), torch.get_rng_state()
    capfd.readouterr()
    encoded(kinds, "sd-3-without-t5", PROMPTS)
    assert settings() == before and torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")


def test_inversion_does_not_read_the_negative_prompt(kinds: Kinds) -> None:
    latents = torch.ones(1, 4, 8, 8)
    config = InversionConfig(timesteps=(501,), num_inference_steps=10, grid="scheduler")
    found = [
        kinds.model("sd-1", negative).invert(latents, torch.tensor([1]), config)[501]
        for negative in (None, NEGATIVE)
    ]
    assert torch.equal(*found)


def test_parts_that_have_no_say_in_prompts_are_not_loaded(kinds: Kinds, tmp_path: Path) -> None:
    """As the repositories of Stable Diffusion 1.5 and others name them."""
    folder = Path(shutil.copytree(kinds.folder("sd-1"), tmp_path / "model"))
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "requires_safety_checker": True,
        "unheard_of": ["evil", "Evil"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    model = LatentDiffusion.from_pretrained(folder, device="cpu", prompts=PROMPTS)
    assert model.inversion_fingerprint == kinds.model("sd-1").inversion_fingerprint


@pytest.mark.parametrize("name", ["sd-1", "sdxl", "pixart-sigma", "sd-3", "sana", "flux-dev"])
def test_half_precision_is_that_of_encoders_and_embeddings_too(name: str, kinds: Kinds) -> None:
    model = LatentDiffusion.from_pretrained(
        kinds.folder(name), device="cpu", prompts=PROMPTS, torch_dtype=torch.bfloat16
    )
    assert isinstance(model.conditioning, PromptEmbeddings)
    assert model.conditioning.embeddings[0]["encoder_hidden_states"].dtype == torch.bfloat16
    found, expected = denoise(model, 2.0), denoise(kinds.model(name), 2.0)
    assert found.dtype == torch.float32 and torch.isfinite(found).all()
    assert (found - expected).abs().mean() < 0.1 * expected.std()
