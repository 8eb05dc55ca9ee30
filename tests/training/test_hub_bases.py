"""Base models of prompts that come from the Hub, and what half precision asks of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d3hr_datasets.diffusion.adapters import read_description
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.training.diffusion import train_diffusion
from tests.support.hub_server import HubServer
from tests.support.tiny_kinds import save_kind
from tests.training.tiny_training import CLASSES, metrics, tiny_settings, write_inputs


def test_a_base_of_prompts_on_the_hub_is_adapted(tmp_path: Path, hub: HubServer) -> None:
    """Its text encoders are brought, too."""
    write_inputs(tmp_path)
    commit = hub.add_folder("org/base", save_kind("sd-1", tmp_path / "base"), "models")
    settings = tiny_settings(
        tmp_path,
        tmp_path / "run",
        start="lora",
        model=f"org/base@{commit}",
        prompt="a photo of a {name}",
        samples_per_class=0,
    )
    adapter = train_diffusion(settings)
    description = read_description(adapter)
    assert (description.repo_id, description.revision) == ("org/base", commit)
    prompts = {label: f"a photo of a {label}" for label in range(3)}
    LatentDiffusion.from_pretrained(
        "org/base", revision=commit, device="cpu", prompts=prompts, adapter=adapter
    )


def test_half_precision_of_a_base_of_prompts_goes_with_held_out_images(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    settings = tiny_settings(
        tmp_path,
        tmp_path / "run",
        start="lora",
        model=str(save_kind("sd-1", tmp_path / "base")),
        prompt="a photo of a {name}",
        mixed_precision="bf16",
        split="train",
        validation_split="held-out",
    )
    train_diffusion(settings)
    assert 0 < metrics(tmp_path / "run", table="validation")[-1] < 10


def test_a_run_is_not_gone_on_with_on_other_prompts(tmp_path: Path) -> None:
    """Also where the file with them has the same name."""
    write_inputs(tmp_path)
    changes = {"start": "lora", "model": str(save_kind("sd-1", tmp_path / "base")), "samples_per_class": 0}
    file = tmp_path / "prompts.json"
    for words, epochs in (("a photo of a", 1), ("a photo of a", 2), ("a drawing of a", 3)):
        file.write_text(json.dumps({name: f"{words} {name}" for name in CLASSES}))
        settings = tiny_settings(
            tmp_path, tmp_path / "run", prompts=str(file), **{**changes, "epochs": epochs}
        )
        if epochs < 3:
            train_diffusion(settings)
    with pytest.raises(ConfigError, match="begun with prompts that have changed since"):
        train_diffusion(settings)
