"""The figures of docs/concepts.md are those that the recipe draws, and the page shows each of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from recipes.tables import concept_figures
from tests.docs.pages import DOCS, ROOT

FOLDER = ROOT / concept_figures.OUTPUT


def test_the_recipe_draws_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["concept_figures", "--only", "spread", "--output", str(tmp_path)])
    concept_figures.main()
    (path,) = tmp_path.glob("*.png")
    with Image.open(path) as drawn, Image.open(FOLDER / "spread.png") as kept:
        assert drawn.size == kept.size and drawn.mode == "P"


def test_a_group_of_modes_spreads_more_than_others() -> None:
    """What the page says of its last figure."""
    decoder = concept_figures.Decoder.embedded()
    label = decoder.label(concept_figures.CLASS)
    _, plane, _ = concept_figures.plane_of_modes(decoder, label)
    spread = {
        name: float((decoder.group(label, sampling).double().flatten(1) @ plane).var(dim=0).mean())
        for name, sampling in concept_figures.METHODS.items()
    }
    assert spread["modes"] > max(spread["moment_matched"], spread["search"])


def test_the_page_shows_every_figure() -> None:
    text = (DOCS / "concepts.md").read_text(encoding="utf-8")
    paths = {path.stem: path for path in FOLDER.glob("*.png")}
    assert paths.keys() == concept_figures.FIGURES.keys()
    for name, path in paths.items():
        assert f"(images/{name}.png)" in text
        assert path.stat().st_size < 120_000
