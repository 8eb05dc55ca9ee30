"""The script that measures a model of the size of DiT-XL/2, on a small one of the same layout."""

from __future__ import annotations

import json
from pathlib import Path

from recipes.evaluate.dit_xl import make_transformer, make_vae, use, write_artifact


def test_one_image_of_a_written_model(tmp_path: Path) -> None:
    transformer = make_transformer(num_layers=1, num_attention_heads=1, attention_head_dim=8)
    vae = make_vae(block_out_channels=(32,) * 4, layers_per_block=1)
    artifact = write_artifact(tmp_path / "artifact", transformer, vae)
    artifact.verify()
    folder = artifact.model_folder()
    assert folder is not None
    config = json.loads((folder / "transformer" / "config.json").read_text())
    assert (config["patch_size"], config["num_embeds_ada_norm"], config["out_channels"]) == (2, 1000, 8)
    values = use(tmp_path / "artifact", tmp_path / "cache", steps=5, dtype="float32")
    assert (values["image_size"], values["image_mode"], values["label"]) == ([256, 256], "RGB", 0)
    assert values["model_evaluations"] == 4 and values["image_seconds"] > 0
    assert values["parameters"] == sum(parameter.numel() for parameter in transformer.parameters())
    assert 0 < values["peak_memory_gib_after_loading"] <= values["peak_memory_gib"] < 4
