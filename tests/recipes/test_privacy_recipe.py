"""The recipe on privacy takes up what an earlier run released, and only if it is what it would release."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.privacy import PrivacySettings
from recipes.common.errors import RecipeError
from recipes.evaluate.privacy import attack, check_made
from tests.support.private_builds import LATENTS, build_private, private_info
from tests.support.tiny import tiny_model, tiny_pipeline


def test_an_artifact_of_an_earlier_run_is_that_of_this_run_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    tiny_pipeline().save_pretrained(folder / "model")
    model = LatentDiffusion.from_pretrained(folder / "model", device="cpu")
    info = private_info()
    plain: Any = SimpleNamespace(info=dataclasses.replace(info, privacy=None), diffusion=model)
    build_private(model, folder, info)
    check_made(folder, plain, info.privacy)
    for privacy in (None, PrivacySettings(5.0, 1e-6).mechanism(48, 1.0)):
        with pytest.raises(RecipeError, match="an artifact of another privacy; give another --work"):
            check_made(folder, plain, privacy)
    inversion = dataclasses.replace(info.inversion, num_inference_steps=20)
    plain.info = dataclasses.replace(plain.info, inversion=inversion)
    plain.diffusion = tiny_model(prediction_type="v_prediction")
    with pytest.raises(RecipeError, match="an artifact of another inversion and model"):
        check_made(folder, plain, info.privacy)


def test_what_an_attack_finds_by_construction_is_marked() -> None:
    found = attack({"0": LATENTS}, None, 64, 1)
    assert found["known"]["by_construction"] and found["known"]["advantage"] == [1.0]
    assert not found["unknown"]["by_construction"]
    private = attack({"0": LATENTS}, private_info().privacy, 64, 1)
    assert not any(one["by_construction"] for one in private.values())
