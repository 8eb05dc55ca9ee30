"""A model of prompts that lies in an artifact with all that reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from d3hr_datasets import Artifact, ClassGaussians, InversionConfig
from d3hr_datasets.artifact.d3hr_json import METADATA, max_bytes
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.config.prompts import Prompts
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.errors import ArtifactFormatError, ArtifactIntegrityError
from d3hr_datasets.io.untrusted_files import (
    MAX_CONFIG_BYTES,
    MAX_TOKENIZER_BYTES,
    MAX_WEIGHTS_BYTES,
    check_model_file,
)
from tests.support.kinds import Kinds
from tests.support.tiny import tiny_info
from tests.support.tiny_kinds import PROMPTS


@pytest.fixture
def artifact(kinds: Kinds, tmp_path: Path) -> Artifact:
    """Return an artifact of three classes that holds a tiny PixArt."""
    folder = tmp_path / "artifact"
    shutil.copytree(kinds.folder("pixart-sigma"), folder / "model")
    info = tiny_info(
        image_size=16,
        image_mode="RGB",
        padding=0,
        latent_shape=(4, 8, 8),
        prompts=Prompts(tuple(PROMPTS.values())),
        inversion=InversionConfig(timesteps=(400,), num_inference_steps=10),
        decode=DecodeConfig(timestep=400, num_inference_steps=10, guidance_scale=2.0),
    )
    gaussians = ClassGaussians(torch.zeros(3, 4, 8, 8), torch.ones(3, 4, 8, 8), torch.full((3,), 4))
    return Artifact.save(folder, info, {400: gaussians})


def test_its_prompts_are_read_by_what_lies_in_it(artifact: Artifact, kinds: Kinds) -> None:
    assert {"model/tokenizer/spiece.model", "model/text_encoder/model.safetensors"} < set(artifact.sha256)
    model = load_model(artifact, device="cpu")
    assert model.inversion_fingerprint == kinds.model("pixart-sigma").inversion_fingerprint
    some = load_model(artifact, device="cpu", class_labels=[2]).conditioning
    assert isinstance(some, PromptEmbeddings) and set(some.embeddings) == {2} and some.num_classes == 3


def test_a_changed_vocabulary_is_refused(artifact: Artifact) -> None:
    path = artifact.folder / "model" / "tokenizer" / "spiece.model"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(
        ArtifactIntegrityError, match=rf"spiece.model is not the file that {METADATA} describes"
    ):
        load_model(artifact, device="cpu")


@pytest.mark.parametrize("name", ["tokenizer/evil.py", "tokenizer/vocab.bin", "text_encoder/model.model"])
def test_other_files_are_refused(name: str, artifact: Artifact) -> None:
    (artifact.folder / "model" / name).write_bytes(b"x")
    saved = Artifact.save(artifact.folder, artifact.info, {400: artifact.gaussians(400)})
    with pytest.raises(ArtifactFormatError, match=r"nothing else of it is read"):
        load_model(saved, device="cpu")


def test_files_of_tokenizers_may_be_larger_than_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tiny_info()
    assert max_bytes(info, "model/tokenizer/tokenizer.json") == MAX_TOKENIZER_BYTES == 2**26
    assert max_bytes(info, "model/tokenizer_2/merges.txt") == MAX_TOKENIZER_BYTES
    assert max_bytes(info, "model/text_encoder/config.json") == MAX_CONFIG_BYTES
    assert max_bytes(info, "model/tokenizer/model.safetensors") == MAX_WEIGHTS_BYTES
    monkeypatch.setattr("d3hr_datasets.io.untrusted_files.MAX_TOKENIZER_BYTES", 10)
    (tmp_path / "tokenizer_3").mkdir()
    for name, accepted in (("vocab.json", "{}"), ("merges.txt", "a b"), ("spiece.model", "x")):
        path = tmp_path / "tokenizer_3" / name
        path.write_text(accepted)
        check_model_file(path)
        path.write_text(accepted + " " * 10)
        with pytest.raises(ArtifactFormatError, match=r"at most 10"):
            check_model_file(path)
