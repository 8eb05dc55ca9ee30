"""Orders of curated images in artifacts: format, fingerprints, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from d3hr_datasets import Artifact, Curation
from d3hr_datasets.artifact.d3hr_json import CURATION
from d3hr_datasets.artifact.facts import artifact_facts
from d3hr_datasets.artifact.order_file import ORDER
from d3hr_datasets.errors import ArtifactFormatError, ArtifactIntegrityError, ConfigError
from tests.support.curated import add_order, curation, save_separate_artifact
from tests.support.tampering import change_info, flip_byte, read_document, refresh_checksum, write_document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of an artifact of two modes a class, without an order."""
    return save_separate_artifact(tmp_path / "separate").folder


def test_an_order_makes_format_2_and_leaves_the_fingerprint(folder: Path) -> None:
    before, plain = Artifact.load(folder), read_document(folder)
    assert plain["format"] == 1 and "curation" not in plain["info"] and before.order_fingerprint is None
    ordered = add_order(folder)
    assert read_document(folder)["format"] == 2
    assert ordered.fingerprint == before.fingerprint
    assert ordered.info.curation == curation()
    assert ordered.order().shape == (3, 12) and ordered.order().dtype == torch.int64
    assert torch.equal(ordered.order(1)[0], ordered.order()[1])
    assert (folder / CURATION).stat().st_size < 400  # 4 bytes an image
    ordered.verify()
    fingerprints = {ordered.order_fingerprint}
    fingerprints.add(add_order(folder, torch.arange(12).repeat(3, 1)).order_fingerprint)
    fingerprints.add(add_order(folder, torch.arange(12).repeat(3, 1), seed=1).order_fingerprint)
    assert len(fingerprints) == 3
    change_info(folder, curation=...)
    (folder / CURATION).unlink()
    Artifact(folder, Artifact.load(folder).info, {}).write_metadata()
    assert read_document(folder) == plain  # byte for byte what it was


def test_copies_and_checks_have_the_order(folder: Path, tmp_path: Path) -> None:
    ordered = add_order(folder)
    copy = ordered.save_pretrained(tmp_path / "copy")
    assert torch.equal(copy.order(), ordered.order())
    flip_byte(folder / CURATION)
    with pytest.raises(ArtifactIntegrityError, match=r"curation\.safetensors is not the file"):
        Artifact.load(folder).verify()
    (folder / CURATION).unlink()
    with pytest.raises(ArtifactIntegrityError, match="is missing"):
        Artifact.load(folder).order(0)


def test_facts_say_how_long_and_by_which_teacher(folder: Path) -> None:
    assert "curated" not in artifact_facts(Artifact.load(folder))
    fact = artifact_facts(add_order(folder))["curated"]
    for text in (
        "12 images per class",
        "herding",
        "30 candidates, 28 to 30",
        "teacher nobody",
        "guidance 1.5",
    ):
        assert text in fact


def _spoiled(order: torch.Tensor, what: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a damaged order."""
    order = order.to(torch.int32)
    if what == "negative":
        order[2, 3] = -1
    elif what == "beyond":
        order[1, 0] = 30
    elif what == "twice":
        order[0, 5] = order[0, 4]
    return {
        "short": {ORDER: order[:, :11].contiguous()},
        "classes": {ORDER: order[:2].contiguous()},
        "wide": {ORDER: order.long()},
        "none": {"other": order},
    }.get(what, {ORDER: order})


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("negative", r"has the number -1; accepted: 0 to 29"),
        ("beyond", r"has the number 30; accepted: 0 to 29"),
        ("twice", r"has the number \d+ twice in one class"),
        ("short", r"order is I32 \[3, 11\]; accepted: I32 \[3, 12\]"),
        ("classes", r"order is I32 \[2, 12\]; accepted: I32 \[3, 12\]"),
        ("wide", r"order is I64 \[3, 12\]; accepted: I32"),
        ("none", r"order.*download the artifact again"),
    ],
)
def test_damaged_orders_are_refused(what: str, says: str, folder: Path) -> None:
    tensors = _spoiled(add_order(folder).order(), what)
    (folder / CURATION).unlink()
    save_file(tensors, folder / CURATION)
    refresh_checksum(folder, CURATION)
    with pytest.raises(ArtifactFormatError, match=says):
        Artifact.load(folder).verify()


def test_an_order_without_its_file_or_of_format_1_is_refused(folder: Path) -> None:
    add_order(folder)
    document = read_document(folder)
    write_document(folder, {**document, "format": 1})
    with pytest.raises(ArtifactFormatError, match=r"format = 1, but .*an order of images"):
        Artifact.load(folder)
    del document["sha256"][CURATION]
    write_document(folder, document)
    with pytest.raises(ArtifactIntegrityError, match="SHA-256 differs"):
        Artifact.load(folder).order()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_kept": 31}, r"curation\.num_kept must be from 1 to 30, not 31"),
        ({"num_kept": 0}, "num_kept must be from 1"),
        ({"num_candidates": 10**6}, "num_candidates must be from 1 to 65536"),
        ({"seed": -1}, r"curation\.seed must be at least 0"),
        ({"teacher": "a\nb"}, r"curation\.teacher must be of printable"),
        ({"teacher_sha256": "xyz"}, "64 hexadecimal digits, not 'xyz'"),
        ({"target": "nothing"}, r"curation\.target must be one of"),
        ({"recognized": [30, 29]}, "one entry per class"),
        ({"recognized": [30, 29, 31]}, r"curation\.recognized must be from 0 to 30"),
        ({"recognized": 3}, "must be a list"),
        ({"mode_spread": -1}, "mode_spread must be at least 0"),
        ({"mode_spread": None}, "does not go with num_modes = 2"),
        ({"method": 3}, r"curation\.method must be a string"),
        (
            {"decode": {"timestep": 300, "num_inference_steps": 10}},
            r"curation\.decode\.timestep 300 is not stored",
        ),
        ({"decode": None}, "DecodeConfig must be a JSON object"),
        ({"stranger": 1}, r"Curation does not know \['stranger'\]"),
    ],
)
def test_descriptions_of_orders_are_checked(changes: dict[str, Any], says: str, folder: Path) -> None:
    add_order(folder)
    change_info(folder, curation={**read_document(folder)["info"]["curation"], **changes})
    with pytest.raises(ArtifactFormatError, match=says):
        Artifact.load(folder)


def test_a_description_is_the_same_in_json() -> None:
    assert "difficulty_spread" not in curation().to_dict()
    for described in (
        curation(),
        curation(mode_spread=None, difficulty_weight=0.5, seed=3),
        curation(difficulty_spread=1.0),
    ):
        assert Curation.from_dict(json.loads(json.dumps(described.to_dict()))) == described
    with pytest.raises(ConfigError, match="missing"):
        Curation.from_dict({})


def test_artifacts_without_an_order_say_so(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"stores no order .*'modes'.*d3hr curate"):
        Artifact.load(folder).order()
