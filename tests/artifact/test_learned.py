"""Learned means in the description of an artifact: format, checks and words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.facts import artifact_facts
from d3hr_datasets.artifact.learned import Learned
from d3hr_datasets.errors import ArtifactFormatError, ConfigError
from tests.support.curated import save_separate_artifact
from tests.support.learning import learned
from tests.support.tampering import change_info, read_document, write_document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of an artifact of two modes a class, which says that its means are learned."""
    return save_separate_artifact(tmp_path / "learned", learned=learned()).folder


def test_a_description_is_the_same_in_json(folder: Path) -> None:
    assert Learned.from_dict(json.loads(json.dumps(learned().to_dict()))) == learned()
    document = read_document(folder)
    assert document["format"] == 2 and Artifact.load(folder).info.learned == learned()
    write_document(folder, {**document, "format": 1})
    with pytest.raises(ArtifactFormatError, match=r"format = 1, but .*learned means"):
        Artifact.load(folder)
    change_info(folder, learned=...)
    assert Artifact.load(folder).info.learned is None


def test_facts_say_how_far_and_from_what(folder: Path, tmp_path: Path) -> None:
    fact = artifact_facts(Artifact.load(folder))["learned"]
    for text in ("distribution matching", "1, 10 images", "1,200 steps", "0.25 standard", "0123456789abcdef"):
        assert text in fact
    plain = save_separate_artifact(tmp_path / "plain")
    assert "learned" not in artifact_facts(plain) and "learned" not in read_document(plain.folder)["info"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "magic"}, r"learned\.method must be one of"),
        ({"network": "a\nb"}, r"learned\.network must be of printable"),
        ({"iterations": 0}, r"learned\.iterations must be at least 1"),
        ({"ipc": [1, 1]}, r"learned\.ipc must be 1 to 100 different"),
        ({"ipc": 3}, r"learned\.ipc must be 1 to 100 different"),
        ({"timesteps": []}, r"learned\.timesteps must be a list of some"),
        ({"timesteps": [300]}, r"learned\.timesteps \[300\] are not stored; stored: \[200, 400\]"),
        ({"num_images": 0}, r"learned\.num_images must be at least 1"),
        ({"max_shift": -1}, r"learned\.max_shift must be at least 0"),
        ({"loss_after": "low"}, r"learned\.loss_after must be a finite number"),
        ({"original": "x"}, r"learned\.original must be sixteen hexadecimal digits"),
        ({"seed": -1}, r"learned\.seed must be at least 0"),
        ({"stranger": 1}, r"Learned does not know \['stranger'\]"),
    ],
)
def test_descriptions_are_checked(changes: dict[str, Any], says: str, folder: Path) -> None:
    change_info(folder, learned={**read_document(folder)["info"]["learned"], **changes})
    with pytest.raises(ArtifactFormatError, match=says):
        Artifact.load(folder)


def test_means_are_learned_of_modes_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_modes = 1 says that there are none"):
        save_separate_artifact(tmp_path / "plain", num_modes=1, learned=learned())
