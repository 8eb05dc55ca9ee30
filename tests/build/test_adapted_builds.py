"""Builds with an adapter of a model: it lies in the artifact, and belongs to its model."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from diffusers import DiTTransformer2DModel

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.artifact.facts import artifact_facts
from d3hr_datasets.build import BuildSettings, ModelOptions, plan_build
from d3hr_datasets.errors import ArtifactIntegrityError, ConfigError, ModelFormatError, ModelNotFoundError
from tests.cli.test_cli import d3hr, fail
from tests.support.hub_server import HubServer
from tests.support.own_photos import assert_same_from_the_hub, build, pixels, save_models
from tests.support.tampering import read_document, refresh_checksum, write_document
from tests.support.tiny_adapters import save_tiny_adapter

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the Hub's client


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with models: `text`, `flow` and `dit`."""
    return save_models(tmp_path_factory.mktemp("models"))


def test_an_adapter_of_new_classes_lies_in_the_artifact(
    models: Path, image_folder: Path, tmp_path: Path, hub: HubServer
) -> None:
    commit = hub.add_folder("org/base", models / "dit", "models")
    base = {"repo_id": "org/base", "revision": commit}
    adapter = save_tiny_adapter(models / "dit", tmp_path / "adapter", 3, **base)
    (adapter / "notes.txt").write_text("not of the adapter")
    artifact = build(image_folder, f"org/base@{commit}", tmp_path / "set", "--adapter", adapter)
    assert artifact.info.adapter and artifact.info.classes == ("blue", "green", "red")
    assert (artifact.info.inversion.grid, artifact.info.inversion.timesteps) == ("ddim", (600,))
    assert sorted(path.name for path in (artifact.folder / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "d3hr_adapter.json",
    ]
    assert read_document(artifact.folder)["format"] == 2
    facts = artifact_facts(artifact)
    assert facts["adapter"].startswith("LoRA of rank 2, 0.0 MB, of org/base at revision")
    images = pixels(D3HRDataset(artifact.folder, tmp_path / "cache", ipc=2, device="cpu"))
    assert_same_from_the_hub(artifact, tmp_path, images)
    printed = d3hr("info", artifact.folder).stdout
    assert "LoRA of rank 2" in printed and "tiny-license, https://example.org/terms" in printed
    plain = build(image_folder, models / "dit", tmp_path / "plain", "--class-order", "same")
    assert plain.fingerprint != artifact.fingerprint and not plain.info.adapter
    assert plain.sha256["statistics.safetensors"] != artifact.sha256["statistics.safetensors"]


def test_an_adapter_goes_and_comes_with_the_build(models: Path, image_folder: Path, tmp_path: Path) -> None:
    adapter = save_tiny_adapter(models / "dit", tmp_path / "adapter", 3)
    output = tmp_path / "set"
    build(image_folder, models / "dit", output, "--adapter", adapter).verify()
    plain = build(image_folder, models / "dit", output, "--class-order", "same")
    assert not (output / "adapter").exists() and not any("adapter" in name for name in plain.sha256)
    shutil.copytree(adapter, tmp_path / "mine" / "adapter")
    (tmp_path / "mine" / "adapter" / "thesis.txt").write_text("mine")
    order = ("--class-order", "same", "--device", "cpu")
    line = fail(1, "build", image_folder, "--model", models / "dit", "--output", tmp_path / "mine", *order)
    assert "has other files in it (['adapter'])" in line
    given = ("--adapter", adapter, "--device", "cpu", "--output", tmp_path / "mine")
    line = fail(1, "build", image_folder, "--model", models / "dit", *given)
    assert "has files that are no copy of an adapter (['thesis.txt'])" in line
    assert (tmp_path / "mine" / "adapter" / "thesis.txt").read_text() == "mine"


def test_an_adapter_that_does_not_belong_is_refused(models: Path, image_folder: Path, tmp_path: Path) -> None:
    adapter = save_tiny_adapter(models / "dit", tmp_path / "adapter", 3)
    two = save_tiny_adapter(models / "dit", tmp_path / "two", 2)

    def refused(model: str, folder: Path, *more: object) -> str:
        given = ("--adapter", folder, "--device", "cpu", "--output", tmp_path / "out", *more)
        return fail(1, "build", image_folder, "--model", models / model, *given)

    assert "was trained on 2 classes, and the source has 3 (blue, green, red)" in refused("dit", two)
    other = Path(shutil.copytree(models / "dit", tmp_path / "other"))
    network = DiTTransformer2DModel.from_pretrained(other / "transformer")
    network.proj_out_2.bias.data += 1
    network.save_pretrained(other / "transformer")
    assert "the adapter was trained on another model" in refused(str(other), adapter)
    prompt = ("--prompt", "a {name}")
    assert "of the kind DiT, and the model is of the kind Stable Diffusion" in refused(
        "text", adapter, *prompt
    )
    assert "adapter_config.json is missing: an adapter is a folder" in refused("dit", tmp_path)
    assert "leave out --allow-bin, or --adapter" in refused("dit", adapter, "--allow-bin")
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    assert "adapter" in refused("dit", adapter)
    assert not (tmp_path / "out").exists()


def test_a_model_of_prompts_may_have_an_adapter(models: Path, image_folder: Path, tmp_path: Path) -> None:
    adapter = save_tiny_adapter(models / "text", tmp_path / "adapter")
    words = ("--prompt", "a photo of a {name}")
    adapted = build(image_folder, models / "text", tmp_path / "adapted", *words, "--adapter", adapter)
    plain = build(image_folder, models / "text", tmp_path / "plain", *words)
    assert adapted.info.prompts == plain.info.prompts and adapted.info.adapter
    assert adapted.sha256["statistics.safetensors"] != plain.sha256["statistics.safetensors"]
    images = pixels(D3HRDataset(adapted.folder, tmp_path / "cache", ipc=1, device="cpu"))
    (adapted.folder / "adapter" / "adapter_model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ArtifactIntegrityError, match=r"adapter_model\.safetensors is not the file"):
        pixels(D3HRDataset(Artifact.load(adapted.folder), tmp_path / "other", ipc=1, device="cpu"))
    assert len(images) == 3


def test_an_adapter_of_more_classes_than_the_artifact_makes_no_tables_for_them(
    models: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_tiny_adapter(models / "dit", tmp_path / "adapter", 3)
    artifact = build(image_folder, models / "dit", tmp_path / "set", "--adapter", adapter)
    path = artifact.folder / "adapter" / "d3hr_adapter.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_classes": 65_536}))
    refresh_checksum(artifact.folder, "adapter/d3hr_adapter.json")
    monkeypatch.setattr(
        "d3hr_datasets.diffusion.adapters.add_adapter", lambda *_: pytest.fail("it makes tables")
    )
    with pytest.raises(ModelFormatError, match="of 65536 classes, the artifact of 3"):
        pixels(D3HRDataset(artifact.folder, tmp_path / "cache", ipc=1, device="cpu"))


def test_an_adapter_that_has_changed_since_is_noticed(
    models: Path, image_folder: Path, tmp_path: Path
) -> None:
    adapter = save_tiny_adapter(models / "dit", tmp_path / "adapter", 3)
    settings = BuildSettings(num_inference_steps=10, num_modes=1)
    options = ModelOptions("cpu", adapter=adapter)
    plan = plan_build(image_folder, models / "dit", tmp_path / "out", settings, model_options=options)
    with pytest.raises(ConfigError, match="plan anew to build with another adapter"):
        dataclasses.replace(plan, adapter=None)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes())
    with pytest.raises(ConfigError, match="has changed since the build was planned"):
        plan.run(progress=False)
    assert not (tmp_path / "out").exists()


def test_classes_are_those_that_the_adapter_was_trained_on(
    models: Path, image_folder: Path, tmp_path: Path
) -> None:
    order = ("red", "blue", "green")  # not that of the folders
    adapter = save_tiny_adapter(models / "dit", tmp_path / "adapter", 3, classes=order)
    artifact = build(image_folder, models / "dit", tmp_path / "set", "--adapter", adapter)
    assert artifact.info.classes == order
    other = save_tiny_adapter(models / "dit", tmp_path / "other", 3, classes=("red", "blue", "grey"))
    message = fail(
        1, "build", image_folder, "--model", models / "dit", "--output", tmp_path / "none", "--adapter", other
    )
    assert "green" in message


def test_verify_misses_an_adapter_and_embeddings_that_are_not_listed(
    models: Path, image_folder: Path, tmp_path: Path
) -> None:
    adapter = save_tiny_adapter(models / "text", tmp_path / "adapter")
    given = ("--prompt", "a photo of a {name}", "--store-embeddings", "--adapter", adapter)
    folder = build(image_folder, models / "text", tmp_path / "set", *given).folder
    whole = read_document(folder)
    for name in ("adapter/adapter_model.safetensors", "embeddings.safetensors"):
        kept = {key: value for key, value in whole["sha256"].items() if key != name}
        write_document(folder, {**whole, "sha256": kept})
        with pytest.raises((ModelNotFoundError, ArtifactIntegrityError), match=Path(name).stem):
            Artifact.load(folder).verify()
