"""From a folder of images and a prompt to a data set on the Hub, and back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.artifact.facts import CARD, artifact_facts
from d3hr_datasets.diffusion import prompts as reading
from d3hr_datasets.errors import ModelFormatError
from tests.support.hub_server import HubServer
from tests.support.own_photos import assert_same_from_the_hub, build, pixels, save_models
from tests.support.tampering import read_document

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the Hub's client


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with models: `text`, `flow` and `dit`."""
    return save_models(tmp_path_factory.mktemp("models"))


def test_a_folder_and_a_prompt_make_a_data_set(
    models: Path, image_folder: Path, tmp_path: Path, hub: HubServer
) -> None:
    commit = hub.add_folder("org/base", models / "text", "models")
    model = f"org/base@{commit}"
    artifact = build(image_folder, model, tmp_path / "set", "--prompt", "a photo of a {name}")
    info = artifact.info
    assert info.model.repo_id == "org/base" and info.inversion.grid == "scheduler"
    assert info.inversion.timesteps == (601,) and info.decode.timestep == 601
    assert info.prompts is not None and info.prompts.per_class[0] == "a photo of a blue"
    assert len(info.shrinkage) == 3 and read_document(artifact.folder)["format"] == 2
    assert not (artifact.folder / "model").exists()
    images = pixels(D3HRDataset(artifact.folder, tmp_path / "cache", ipc=2, device="cpu"))
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == 6
    assert_same_from_the_hub(artifact, tmp_path, images)
    card = (artifact.folder / CARD).read_text()
    assert "tiny-license, https://example.org/terms (of org/base)" in card.replace("\\", "")
    assert "[org/base](https://huggingface.co/org/base)" in card.replace("\\", "")
    assert "'a photo of a blue', 'a photo of a green', 'a photo of a red'" in card


def test_only_the_prompts_in_use_are_read(
    models: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--prompt", "a photo of a {name}", "--negative-prompt", "blurry")
    artifact = build(image_folder, models / "text", tmp_path / "set", *options)
    whole = D3HRDataset(artifact, tmp_path / "whole", ipc=2, device="cpu")
    some = D3HRDataset(artifact, tmp_path / "some", ipc=2, device="cpu", classes=["red", "blue"])
    asked = []
    encode = reading.encode_prompts

    def noted(kind: Any, folder: Path, prompts: Any, negative: str | None, *rest: Any) -> Any:
        asked.append((prompts, negative))
        return encode(kind, folder, prompts, negative, *rest)

    monkeypatch.setattr("d3hr_datasets.diffusion.prompts.encode_prompts", noted)
    images = pixels(some)
    assert asked == [({0: "a photo of a blue", 2: "a photo of a red"}, "blurry")]
    assert np.array_equal(images, pixels(whole)[[4, 5, 0, 1]])
    assert artifact.info.prompts is not None and artifact.info.prompts.negative == "blurry"


def test_stored_embeddings_need_no_text_encoder(
    models: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: HubServer
) -> None:
    commit = hub.add_folder("org/base", models / "text", "models")
    options = ("--prompt", "a photo of a {name}", "--store-embeddings")
    inside = build(image_folder, models / "text", tmp_path / "inside", *options)
    remote = build(image_folder, f"org/base@{commit}", tmp_path / "remote", *options)
    names = {path.name for path in (inside.folder / "model").iterdir()}
    assert names == {"unet", "vae", "scheduler", "model_index.json", CARD}
    size = (inside.folder / "embeddings.safetensors").stat().st_size
    facts = artifact_facts(inside)
    assert facts["embeddings"] == f"stored, {size / 1e6:,.1f} MB: no text encoder is needed"
    inside.verify()

    def no_encoders(*_: object, **__: object) -> None:
        raise AssertionError("text encoders were loaded")

    monkeypatch.setattr(reading, "_open_encoders", no_encoders)
    images = pixels(D3HRDataset(inside.folder, tmp_path / "cache", ipc=2, device="cpu"))
    assert_same_from_the_hub(remote, tmp_path, images)
    brought = {path.parent.name for path in (tmp_path / "elsewhere").rglob("*.*")}
    assert {"unet", "vae"} <= brought and not {"text_encoder", "tokenizer"} & brought


def test_embeddings_are_there_where_they_are_asked_for(
    models: Path, image_folder: Path, tmp_path: Path
) -> None:
    options = ("--prompt", "a photo of a {name}", "--store-embeddings")
    stored = build(image_folder, models / "text", tmp_path / "set", *options)
    images = pixels(D3HRDataset(stored.folder, tmp_path / "cache", ipc=2, device="cpu"))
    path = stored.folder / "embeddings.safetensors"
    whole = load_file(path)
    narrow = {name: values[..., :3].contiguous() for name, values in whole.items()}
    for changed in ({name: values.int() for name, values in whole.items()}, narrow):
        save_file(changed, path)
        damaged = Artifact(stored.folder, stored.info, {})
        damaged.write_metadata()
        with pytest.raises(ModelFormatError, match=r"stores embeddings of shape .* takes floats of width"):
            D3HRDataset(damaged, tmp_path / "none", ipc=1, device="cpu").model()
    without = build(image_folder, models / "text", tmp_path / "set", *options[:2])
    assert (without.folder / "model" / "text_encoder").is_dir() and not without.info.embeddings
    assert (without.folder / "model" / "tokenizer" / "merges.txt").is_file()
    assert not (without.folder / "embeddings.safetensors").exists()
    without.verify()
    others = pixels(D3HRDataset(without.folder, tmp_path / "cache", ipc=2, device="cpu"))
    assert np.abs(others.astype(int) - images).mean() < 2  # half precision of embeddings


WITHOUT = """
import importlib.abc
import importlib.util
import sys

MISSING = ("transformers", "tokenizers", "sentencepiece", "peft")
find_spec = importlib.util.find_spec


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in MISSING else find_spec(name, package)
)
from d3hr_datasets import D3HRDataset

dataset = D3HRDataset(sys.argv[1], sys.argv[2], ipc=2, device="cpu")
dataset.materialize(progress=False)
"""


def test_stored_embeddings_need_no_transformers(models: Path, image_folder: Path, tmp_path: Path) -> None:
    options = ("--prompt", "a photo of a {name}", "--store-embeddings")
    artifact = build(image_folder, models / "text", tmp_path / "set", *options)
    images = pixels(D3HRDataset(artifact.folder, tmp_path / "here", ipc=2, device="cpu"))
    command = [sys.executable, "-c", WITHOUT, str(artifact.folder), str(tmp_path / "there")]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone, timeout=600)
    assert done.returncode == 0, done.stderr
    there = D3HRDataset(artifact.folder, tmp_path / "there", ipc=2, device="cpu")
    assert all(there.cache.is_complete(label) for label in range(3))
    assert np.array_equal(pixels(there), images)
