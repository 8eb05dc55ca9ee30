"""Links and pictures of the documentation lead somewhere, in the repository as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, anchors, links, name_of, pages


def broken(page: Path, text: str) -> list[str]:
    """Return the links of a page that lead nowhere in this repository."""
    missing = []
    for target in links(text):
        path, _, anchor = target.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        there = (page.parent / path).resolve() if path else page
        found = there.exists() and there.is_relative_to(ROOT)
        if not found or (anchor and not _has_anchor(there, anchor, text if there == page else None)):
            missing.append(target)
    return missing


def _has_anchor(page: Path, anchor: str, text: str | None) -> bool:
    """Say whether a page has an anchor; those of the API are objects, which `mkdocs build` looks for."""
    if page.suffix != ".md":
        return False
    text = page.read_text(encoding="utf-8") if text is None else text
    return anchor in anchors(text) or f"::: {anchor}\n" in text


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "link", ["nothing.md", "index.md#nothing", "#nothing", "../../outside.md", "images/nothing.png"]
)
def test_a_broken_link_is_found(link: str) -> None:
    page = ROOT / "docs" / "index.md"
    assert broken(page, f"# Page\n\nA [link]({link}), and `[code](nothing)`.\n") == [link]
    assert broken(page, f"![picture]({link})") == [link]


def test_links_to_headings_are_found() -> None:
    page = ROOT / "docs" / "index.md"
    assert broken(page, "# A page, and `code`!\n\n[link](#a-page-and-code)\n") == []
