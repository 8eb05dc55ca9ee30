"""The README is short, and says no more than the results do."""

from __future__ import annotations

import pytest

from recipes.common.results import read_results
from recipes.tables import findings, result_tables
from tests.docs.pages import ROOT

MOST_WORDS, MOST_ROWS = 1500, 8


def test_the_readme_is_short() -> None:
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert 500 < len(words) <= MOST_WORDS


def test_its_table_has_few_rows_and_the_unfavourable_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_tables, "RESULTS", ROOT / "hub" / "results")
    header, _, *rows = findings.headline().splitlines()
    assert len(rows) <= MOST_ROWS and header.count("|") == 6
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- results -->")[2].partition("<!-- end of results -->")[0]
    assert shown.strip() == findings.headline()
    for name, (labels, wanted) in findings.HEADLINE.items():  # none of a table is left out
        found = read_results(ROOT / "hub" / "results" / "tables" / f"{name}.json")["rows"]
        compared = {row["settings"]["ipc"] for row in found if row["settings"]["source"] == "random_real"}
        assert compared == set(wanted), name
        assert all(f"| {labels} | {ipc} | " in shown for ipc in wanted)
    assert "| hard | all |" in shown
