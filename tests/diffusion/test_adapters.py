"""Adapters: put beside a network, written, read again, and merged into its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from d3hr_datasets import DecodeConfig
from d3hr_datasets.diffusion.adapters import (
    CLASS_TABLE,
    DESCRIPTION,
    FILES,
    PEFT_CONFIG,
    PEFT_WEIGHTS,
    AdapterDescription,
    add_adapter,
    apply_adapter,
    network_digest,
    read_description,
    renew_classes,
    save_adapter,
)
from d3hr_datasets.diffusion.kinds.table import DIT
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError, ModelFormatError, ModelNotFoundError
from tests.support.tiny import tiny_pipeline

LATENTS = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 1])
CLEAN = DecodeConfig(400, 10, 2.0)


def _adapted(num_classes: int | None = None) -> Any:
    """Return a tiny network with an adapter of random weights beside it."""
    model = add_adapter(tiny_pipeline().transformer, rank=2, num_classes=num_classes)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora" in name:
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return model


def _write(folder: Path, base: Path, num_classes: int | None = None) -> Any:
    model = _adapted(num_classes)
    save_adapter(model, AdapterDescription(DIT.name, network_digest(base, DIT), num_classes), folder)
    return model


@pytest.fixture(scope="module")
def adapter(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    _write(folder, saved, num_classes=5)
    return folder


@pytest.fixture
def copy(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "copy"))


def test_only_the_adapter_and_the_new_classes_are_trained() -> None:
    model = _adapted(num_classes=5)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name or CLASS_TABLE in name for name in trained)
    tables = [parameter for name, parameter in model.named_parameters() if CLASS_TABLE in name]
    assert all(len(table) == 6 for table in tables)  # one of no class comes after them


@pytest.mark.parametrize("num_classes", [None, 5])
def test_an_adapter_that_was_written_is_the_one_that_was_trained(
    num_classes: int | None, saved: Path, tmp_path: Path
) -> None:
    model = _write(tmp_path / "adapter", saved, num_classes)
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == sorted(FILES)
    inputs: Any = {"timestep": torch.full((4,), 300), "class_labels": LABELS}
    with torch.inference_mode():
        plain = tiny_pipeline().transformer.eval()(LATENTS, **inputs).sample
        expected = model.eval()(LATENTS, **inputs).sample
        merged = apply_adapter(tiny_pipeline().transformer, tmp_path / "adapter")
        found = merged.eval()(LATENTS, **inputs).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - plain).abs().max() > 0.01
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    assert merged.config.num_embeds_ada_norm == (num_classes or 3)


def test_a_model_with_an_adapter_has_its_classes(adapter: Path, saved: Path) -> None:
    model = LatentDiffusion.from_pretrained(saved, device="cpu", adapter=adapter)
    plain = LatentDiffusion.from_pretrained(saved, device="cpu")
    assert (model.num_classes, plain.num_classes) == (5, 3)
    assert model.inversion_fingerprint != plain.inversion_fingerprint
    assert model.denoise(LATENTS, torch.tensor([0, 3, 4, 1]), CLEAN).shape == LATENTS.shape


def test_settings_of_the_caller_change_nothing(adapter: Path, saved: Path) -> None:
    expected = LatentDiffusion.from_pretrained(saved, device="cpu", adapter=adapter)
    torch.set_default_dtype(torch.float64)
    try:
        found = LatentDiffusion.from_pretrained(saved, device="cpu", adapter=adapter)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.inversion_fingerprint == expected.inversion_fingerprint


def test_loading_draws_nothing_of_the_callers_random_numbers(adapter: Path, saved: Path) -> None:
    before = torch.random.get_rng_state()
    LatentDiffusion.from_pretrained(saved, device="cpu", adapter=adapter)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = tiny_pipeline()
    with torch.no_grad():
        other.transformer.proj_out_2.bias += 1
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelFormatError, match=r"trained on another model .*train an adapter of this one"):
        LatentDiffusion.from_pretrained(tmp_path / "other", device="cpu", adapter=adapter)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_named(name: str, copy: Path, saved: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelNotFoundError, match=rf"{name} is missing: an adapter is a folder with"):
        LatentDiffusion.from_pretrained(saved, device="cpu", adapter=copy)


def _edit(path: Path, **changes: Any) -> None:
    document = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize("rank", [0, 10**9, "2", None, 2.5])
def test_a_rank_that_is_none_is_refused(rank: Any, copy: Path) -> None:
    _edit(copy / PEFT_CONFIG, r=rank)
    with pytest.raises(ModelFormatError, match="is damaged: r must be"):
        apply_adapter(tiny_pipeline().transformer, copy)


@pytest.mark.parametrize("change", [{"num_classes": 0}, {"kind": 3}, {"steps": -1}, {"stranger": 1}])
def test_a_description_that_is_none_is_refused(change: dict[str, Any], copy: Path) -> None:
    _edit(copy / DESCRIPTION, **change)
    with pytest.raises(ModelFormatError, match=DESCRIPTION):
        read_description(copy)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    weights = load_file(copy / PEFT_WEIGHTS)
    save_file({name: values[:1].contiguous() for name, values in weights.items()}, copy / PEFT_WEIGHTS)
    with pytest.raises(ModelFormatError, match="does not fit the network"):
        apply_adapter(tiny_pipeline().transformer, copy)


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "all"},
        {"rank_pattern": {"to_q": 4}},
        {"peft_type": "IA3"},
    ],
)
def test_what_is_no_plain_lora_is_refused(change: dict[str, Any], copy: Path) -> None:
    """It would be applied as plain LoRA, to other images, without a word."""
    _edit(copy / PEFT_CONFIG, **change)
    with pytest.raises(ModelFormatError, match="plain LoRA alone is accepted"):
        apply_adapter(tiny_pipeline().transformer, copy)


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64, None])
def test_weights_that_are_no_finite_floats_are_refused(kind: torch.dtype | None, copy: Path) -> None:
    weights = load_file(copy / PEFT_WEIGHTS)
    changed = {
        name: values * float("nan") if kind is None else values.to(kind) for name, values in weights.items()
    }
    save_file(changed, copy / PEFT_WEIGHTS)
    with pytest.raises(ModelFormatError, match="no finite floating-point numbers"):
        apply_adapter(tiny_pipeline().transformer, copy)


def test_code_that_a_configuration_names_is_not_read(copy: Path) -> None:
    """Of peft's configuration rank and scale are read, and nothing else: neither classes nor patterns."""
    strange = {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}, "target_modules": "(a+)+$"}
    _edit(copy / PEFT_CONFIG, **strange)
    apply_adapter(tiny_pipeline().transformer, copy)


def test_a_network_without_class_labels_has_no_classes_to_renew() -> None:
    with pytest.raises(ModelFormatError, match="takes no class labels"):
        add_adapter(torch.nn.Sequential(torch.nn.Linear(2, 2)), rank=1, num_classes=3)


def test_a_network_without_the_layers_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="cannot be put beside the layers"):
        add_adapter(torch.nn.Sequential(torch.nn.Linear(2, 2)), rank=1)


def test_a_rank_has_to_be_a_number() -> None:
    with pytest.raises(ConfigError, match="rank must be"):
        add_adapter(tiny_pipeline().transformer, rank=0)


def test_variants_of_weights_beside_those_that_are_loaded_make_no_other_base(
    adapter: Path, saved: Path, tmp_path: Path
) -> None:
    """Of a model in the Hub's cache other programs may bring them."""
    base = Path(shutil.copytree(saved, tmp_path / "base"))
    weights = base / "transformer" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert LatentDiffusion.from_pretrained(base, device="cpu", adapter=adapter).num_classes == 5


def test_new_classes_are_as_far_apart_as_the_old_ones() -> None:
    """With embeddings near zero a model whose own are far from it learned digits, and not which is which."""
    network = tiny_pipeline().transformer
    old = [module.embedding_table.weight.detach().clone() for module in _tables(network)]
    for weight in old:
        weight.mul_(7)
    for module, weight in zip(_tables(network), old, strict=True):
        module.embedding_table.weight.data.copy_(weight)
    renew_classes(network, 40)
    for module, before in zip(_tables(network), old, strict=True):
        new = module.embedding_table.weight.detach()
        assert len(new) == 41 and torch.equal(new[-1], before[-1])  # that of no class
        assert 0.7 < float(new.std() / before.std()) < 1.4


def _tables(network: Any) -> list[Any]:
    return [module for name, module in network.named_modules() if name.endswith(f".{CLASS_TABLE}")]
