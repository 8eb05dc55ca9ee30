"""The recipe on privacy takes up what an earlier run released, and only if it is what it would release."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from PIL import Image

from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.privacy import PrivacySettings
from recipes.common.errors import RecipeError
from recipes.common.made_artifacts import check_made
from recipes.common.results import write_results
from recipes.evaluate import privacy_choice
from recipes.evaluate.privacy import attack, joined
from recipes.evaluate.privacy_choice import public_model
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


def _trained(folder: Path, **settings: Any) -> Path:
    """Save the settings of a training, and return where it leaves its model."""
    folder.mkdir()
    values = {"epochs": 3, "learning_rate": 1e-3, "batch_size": 8, **settings}
    (folder / "settings.yaml").write_text(yaml.safe_dump(values))
    return folder / "model"


def test_a_model_that_may_know_private_images_is_refused(tmp_path: Path) -> None:
    public, other = str(tmp_path / "public"), "fashion-mnist"
    vae = _trained(tmp_path / "vae", source=public)
    model = _trained(tmp_path / "dit", source=public, vae=str(vae.with_name("vae")))
    found = public_model(model, tmp_path / "public")
    assert {name: one["source"] for name, one in found.items()} == {"diffusion model": public, "VAE": public}
    everything = _trained(tmp_path / "all", source=other)
    mixed = _trained(tmp_path / "mixed", source=public, vae=str(everything.with_name("vae")))
    for refused, part in ((everything, "diffusion model"), (mixed, "VAE")):
        with pytest.raises(RecipeError, match=f"the {part} in .* was trained on fashion-mnist"):
            public_model(refused, tmp_path / "public")
    tuned = _trained(
        tmp_path / "tuned", source=public, vae=str(vae.with_name("vae")), start="full", model="hub/x"
    )
    decoder = _trained(tmp_path / "decoder", source=public, decoder_of="runs/vae/vae")
    second = _trained(tmp_path / "second", source=public, vae=str(decoder.with_name("vae")))
    for refused, said in (
        (tuned, "diffusion model in .* started from hub/x"),
        (second, "VAE in .* runs/vae"),
    ):
        with pytest.raises(RecipeError, match=said):
            public_model(refused, tmp_path / "public")
    with pytest.raises(RecipeError, match=r"settings\.yaml is missing"):
        public_model(tmp_path / "none" / "model", tmp_path / "public")


def test_steps_that_are_run_apart_add_up(tmp_path: Path) -> None:
    path, settings = tmp_path / "privacy.json", {"numbers": [3]}
    assert joined(path, settings, {"a": {"attack": 1}}) == {"a": {"attack": 1}}
    write_results(path, settings, {"a": {"attack": 1, "privacy": None}, "b": {"attack": 2}})
    found = joined(path, settings, {"a": {"students": 3, "privacy": None}})
    assert found == {"a": {"attack": 1, "privacy": None, "students": 3}, "b": {"attack": 2}}
    with pytest.raises(RecipeError, match="of other settings"):
        joined(path, {"numbers": [4]}, {})


PARTS = ("train", "val")


def test_choices_are_made_of_public_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label, name in enumerate(["000-a", "001-b"]):
        (tmp_path / "public" / name).mkdir(parents=True)
        for index in range(6):
            grey = 255 if index == 5 else 51 * label
            Image.new("L", (4, 4), grey).save(tmp_path / "public" / name / f"{index}.png")
    planned, run = [], []

    def plan(images: Path, model: Path, output: Path, settings: Any, class_options: Any) -> Any:
        planned.append((images, settings.timesteps))
        assert json.loads(Path(class_options.class_list).read_text()) == ["a", "b"]
        return SimpleNamespace(run=lambda: run.append(output))

    def summary(row: Any, seeds: int, _: object) -> dict[str, Any]:
        best = (row.settings["timestep"], row.settings["guidance_scale"]) == (400, 3.0)
        return {"top1": {"mean": 50.0 if best else 40.0, "std": 1.0, "values": [1.0] * seeds}}

    monkeypatch.setattr(privacy_choice, "plan_build", plan)
    monkeypatch.setattr(privacy_choice, "train_all", lambda rows, seeds, jobs: rows)
    monkeypatch.setattr(privacy_choice, "summarize", summary)
    privacy_choice.choose(tmp_path, tmp_path / "model", (4, 2), {"epochs": 1}, 2, 1)
    root = tmp_path / "choice"
    assert planned == [(root / "train", privacy_choice.TIMESTEPS)] and run == [root / "artifact"]
    parts = {
        part: sorted(path.name for path in (root / part / "000-a").iterdir()) for part in ("train", "val")
    }
    assert parts == {"train": ["0.png", "1.png", "2.png", "3.png"], "val": ["4.png", "5.png"]}
    chosen = json.loads((tmp_path / "choice.json").read_text())
    assert (chosen["timestep"], chosen["guidance_scale"], len(chosen["accuracies"])) == (400, 3.0, 9)
    assert (chosen["mean"], chosen["std"]) == ([0.1], [0.1004])  # of the images that statistics are of
