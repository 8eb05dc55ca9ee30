"""The licence of a diffusion model: what its card on the Hub says is noted, and what it does not is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3hr_datasets import Artifact, ModelReference
from d3hr_datasets.artifact.facts import CARD, artifact_facts, license_of_card, license_of_model
from d3hr_datasets.build.model_facts import model_license
from d3hr_datasets.dataset.card_head import ImageFiles
from d3hr_datasets.publish.card import card_text
from tests.support.hub_server import Fault, HubServer
from tests.support.tiny import tiny_info

OPENRAIL = "creativeml-openrail-m"


def _model(hub: HubServer, folder: Path, card: str | None) -> str:
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    if card is not None:
        (folder / CARD).write_text(card)
    return f"org/base@{hub.add_folder('org/base', folder, 'models')}"


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (f"license: {OPENRAIL}", OPENRAIL),
        ("license: other\nlicense_name: my-terms", "my-terms"),
        ("license: other\nlicense_name: a\nlicense_link: https://x.org/a", "a, https://x.org/a"),
        ("license: other\nlicense_name: a\nlicense_link: LICENSE.md", "a"),
        ("license: other", "other"),
        ("tags: [x]", None),
    ],
)
def test_the_licence_of_a_card_is_its_name_and_its_link(head: str, found: str | None) -> None:
    assert license_of_card(f"---\n{head}\n---\n\n# A model\n") == found


def test_what_the_card_of_a_model_says_is_noted(hub: HubServer, tmp_path: Path) -> None:
    model = _model(hub, tmp_path / "model", f"---\nlicense: {OPENRAIL}\n---\n")
    assert model_license(model) == (OPENRAIL, None)
    assert model_license(str(tmp_path / "model")) == (None, None)  # its card is copied with it


@pytest.mark.parametrize(
    ("card", "why"),
    [
        (None, "Entry Not Found"),
        ("# no head\n", "names none"),
        ("---\nlicense: [\n---\n", "expected the node content"),
        ("---\nlicense: a\u202eb\n---\n", ""),
    ],
)
def test_a_licence_that_is_not_known_is_told(
    card: str | None, why: str, hub: HubServer, tmp_path: Path
) -> None:
    found, note = model_license(_model(hub, tmp_path / "model", card))
    assert found is None and note is not None and note.isprintable() and why in note
    assert "the licence of the model org/base is not known" in note and "see its page" in note


def test_a_hub_that_does_not_answer_stops_no_build(hub: HubServer, tmp_path: Path) -> None:
    model = _model(hub, tmp_path / "model", f"---\nlicense: {OPENRAIL}\n---\n")
    hub.faults.append(Fault(503, CARD, "HEAD", times=9))
    found, note = model_license(model)
    assert found is None and note is not None and "is not known" in note


def test_the_terms_of_the_model_stand_on_the_card() -> None:
    reference = ModelReference("org/base", "0" * 40)
    noted = tiny_info(model=reference, source={"model_license": "a, https://x.org/a", "model_kind": "SANA"})
    artifact, unknown = (Artifact(Path("nowhere"), info, {}) for info in (noted, tiny_info(model=reference)))
    assert license_of_model(artifact) == "a, https://x.org/a (of org/base)"
    assert license_of_model(unknown) == "that of org/base"
    assert artifact_facts(artifact)["model"].endswith(", SANA")
    text = card_text(artifact, "org/set", ImageFiles(3, 1, 1))
    section = text.partition("## Licences")[2]
    assert "apply to everybody who makes images with it" in section
    assert "(https://huggingface.co/org/base)" in section
    inside = card_text(Artifact(Path("nowhere"), tiny_info(), {}), "org/set", ImageFiles(3, 1, 1))
    assert "huggingface.co" not in inside.partition("## Licences")[2]
