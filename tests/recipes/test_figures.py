"""Every figure comes from `hub/results/`: README, cards, docs are what `write_cards` makes of it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from d3hr_datasets.copies.comparisons import Comparison, Odds
from d3hr_datasets.copies.findings import CopyFindings
from d3hr_datasets.publish.earlier_card import NOTES
from recipes.common.errors import RecipeError
from recipes.tables import findings, result_tables, write_cards

ROOT = Path(__file__).parents[2]
WRITTEN = ("README.md", "docs/**/*.md", "hub/*/README.md", "hub/*/model/README.md")
# Figures that stand in no block, and where they are from.
SOURCES = {
    "docs/guides/build.md": {
        "0.03": "an option",
        "3 %": "the same",
        "2 %": "1 / sqrt(n), worked out on the page",
        "1 %": "likewise",
        "0.07": "gigabytes, worked out on the page",
        "40 points": "of a cluster, not of accuracy",
    },
    "docs/guides/scale-out.md": {"40 %": "an assumption, and said to be one"},
    "docs/guides/students.md": {
        "0.2861": "the mean of the pixels of Fashion-MNIST",
        "0.3530": "their standard deviation",
    },
    "docs/reference-differences.md": {"0.18215": "the VAE's scaling factor in the reference code"},
    "hub/fashion-mnist-teacher/README.md": {"92.75": "d3hr train student, which writes this card"},
}
NUMBERS = "half|one|two|three|four|five|six|seven|eight|nine|ten"
FIGURE = re.compile(
    r"±\s*\d+(?:\.\d+)?"  # spreads
    r"|(?<![\d.])\d{2}\.\d{1,2}(?![\d.]| ?(?:[KMG]i?B|MB|GB|s\b|min\b))"  # accuracies
    r"|(?<![\d.])\d{1,3} ?%"
    r"|(?<![\d.])0\.\d{2,}"  # errors and correlations
    r"|\b\d+(?:\.\d+)? (?:percentage )?points?\b"
    r"|\b\d+\.\d+ times\b"
    rf"|\b(?:{NUMBERS})(?: and a half)?(?: a)? (?:percentage )?points?\b"
)


def _typed(text: str) -> list[str]:
    """Return the figures outside of blocks and of the generated part of a card."""
    head, found, notes = text.partition(NOTES)
    outside = write_cards.BLOCK.sub("", notes if found else head)
    return FIGURE.findall(outside)


@pytest.fixture
def _in_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("_in_checkout")
def test_readme_cards_and_docs_are_what_the_results_say() -> None:
    differing = [
        str(path)
        for path, text in write_cards.documents().items()
        if path.read_text(encoding="utf-8") != text
    ]
    assert not differing, "python -m recipes.tables.write_cards"


@pytest.mark.usefixtures("_in_checkout")
def test_another_result_changes_every_place_it_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Path(shutil.copytree(result_tables.RESULTS, tmp_path / "results"))
    path = results / "tables" / "hard-labels.json"
    document = json.loads(path.read_text())
    document["rows"][3]["top1"]["mean"] = 98.76
    path.write_text(json.dumps(document))
    path = results / "inversion_methods.json"
    document = json.loads(path.read_text())
    document["results"]["ddim, 25 steps"]["relative_error"] = 0.987
    path.write_text(json.dumps(document))
    monkeypatch.setattr(result_tables, "RESULTS", results)
    texts = {
        path.name if path.parent == Path() else str(path): t for path, t in write_cards.documents().items()
    }
    for place in (
        "README.md",
        "hub/d3hr-fashion-mnist/README.md",
        str(results / "tables" / "hard-labels.md"),
    ):
        assert "98.8 ± " in texts[place], place
    for place in (
        "docs/guides/build.md",
        "hub/d3hr-fashion-mnist/README.md",
        "hub/d3hr-fashion-mnist/model/README.md",
        "docs/reference-differences.md",
    ):
        assert "0.987" in texts[place], place
    assert "98.8 ± 0.8 (3 seeds)" in texts["hub/d3hr-fashion-mnist/README.md"]


def test_no_figure_is_typed_in_by_hand() -> None:
    found, files = {}, [path for pattern in WRITTEN for path in sorted(ROOT.glob(pattern))]
    assert len(files) >= 5
    for path in files:
        typed = _typed(path.read_text(encoding="utf-8"))
        if typed:
            found[path.relative_to(ROOT).as_posix()] = sorted(set(typed))
    assert found == {name: sorted(figures) for name, figures in SOURCES.items()}


@pytest.mark.parametrize(
    "text",
    [
        "an accuracy of 87.1 here",
        "87.75 % on the test set",
        "± 0.3",
        "a PSNR of 32.6, and",
        "of 0.0209",
        "almost nine points",
        "by half a point",
        "3.7 times closer",
        "4 points above",
        "0.98",
        "at 93 %",
    ],
)
def test_figures_are_recognised(text: str) -> None:
    assert _typed(f"Some {text} text.")
    assert not _typed(f"<!-- figures -->\n\n{text}\n\n<!-- end of figures -->")


@pytest.mark.parametrize(
    "text", ["arXiv 2505.18399", "10.50 MB", "version 1.0.20", "60,000 images", "28 x 28"]
)
def test_other_numbers_are_none(text: str) -> None:
    assert not _typed(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- accuracy -->\n<!-- end of accuracy -->", "blocks .'accuracy'."),
        ("<!-- figures -->\n", "'figures' without its other half"),
        ("<!-- end of figures -->\n", "'figures' without its other half"),
    ],
)
def test_blocks_are_checked(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        write_cards.filled(text, "README.md")


def test_the_readme_shows_some_tables_whole_and_links_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (*result_tables.WHOLE_TABLES, "curve")
    texts = {name: f"# Table {name}\n\n| a |\n| --- |\n" for name in names}
    monkeypatch.setattr(result_tables, "table_texts", lambda: texts)
    whole = "".join(f"#### Table {name}\n\n| a |\n| --- |\n\n" for name in result_tables.WHOLE_TABLES)
    assert result_tables.students_tables() == f"{whole}- [Table curve](hub/results/tables/curve.md)"


@pytest.mark.usefixtures("_in_checkout")
def test_the_calls_on_the_models_card_work() -> None:
    card = write_cards.MODEL_CARD.read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippets) == 2
    for snippet, size in zip(snippets, (32, 28), strict=True):
        names: dict[str, object] = {}
        exec(snippet, names)
        images = names["images"]
        assert isinstance(images, list) and len(images) == 2
        assert all(isinstance(image, Image.Image) and image.size == (size, size) for image in images)
        if "pipeline" in names:
            pipeline = names["pipeline"]
            assert names["labels"] == [8, 7]
            with pytest.raises(IndexError):
                pipeline([8])  # type: ignore[operator]


def test_near_copies_of_each_size_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Comparison(30, 1, (), (20.0, 21.0), Odds(0.3, (0.01, 0.01), 4, 0.25, (), False))
    many = Comparison(30, 6, (7,), (0.8, 0.9), Odds(0.3, (0.01, 0.01), 4, 1e-6, ("Bag",), True))
    results = {}
    for name, ratio in (("ipc 1", few), ("ipc 10", many), ("test images as they are", many)):
        spaces = {"pixels": {"distance": few, "ratio": ratio}}
        found = CopyFindings("held out", 60_000, 60_000, 10_000, 0, 50, None, (), spaces)
        results[name] = found.to_dict()
    monkeypatch.setattr(result_tables, "RESULTS", tmp_path)
    monkeypatch.setattr(result_tables, "shipped_fingerprint", lambda: "as it is")
    texts = {}
    for of in ("before", "as it is"):
        settings = {"seeds": 3, "fingerprint": of}
        (tmp_path / "copies.json").write_text(json.dumps({"results": results, "settings": settings}))
        texts[of] = findings.copies()
    text = texts["as it is"]
    assert texts["before"] == f"Of an earlier artifact, before.\n\n{text}"
    assert "| ipc 1 | 30 | 1.0 | 3.3 (p = 0.25) | 3.3 (p = 0.25) |" in text
    assert "| ipc 10 | 30 | 1.0 | 3.3 (p = 0.25) | 20.0 (p = 1e-06), too many |" in text
    assert "- **ipc 1, 3 seeds.** Not more near images than chance can explain" in text
    assert "- **ipc 10, 3 seeds.** More near copies" in text and "above all Bag" in text
    assert "- **test images" not in text
