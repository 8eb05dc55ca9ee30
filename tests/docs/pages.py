"""The pages of the documentation, their blocks of code and their links: Markdown -> what tests go through."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Beside docs/, what is checked as its pages are; README.md is a page like them.
MORE_PAGES = (ROOT / "README.md",)
LANGUAGES = {"python", "console", "text", "yaml", "json"}
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
LINK = re.compile(r"(?<!\\)!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: the line of its fence, its language, and its text without the indent of the fence."""

    line: int
    language: str
    text: str


def pages() -> list[Path]:
    """Return every page, by path."""
    return [*MORE_PAGES, *sorted(DOCS.glob("**/*.md"))]


def name_of(page: Path) -> str:
    """Return the path of a page below the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page, with the files that they include.

    Raises:
        ValueError: A block has no end.
    """
    found, lines = [], text.splitlines()
    number = 0
    while number < len(lines):
        opened = FENCE.match(lines[number])
        number += 1
        if opened is None:
            continue
        start, end = number, re.compile(rf" *{opened['fence'][0]}{{{len(opened['fence'])},}} *")
        while number < len(lines) and not end.fullmatch(lines[number]):
            number += 1
        if number == len(lines):
            raise ValueError(f"the block in line {start} has no end")
        body = textwrap.dedent("\n".join(lines[start:number])) + "\n"
        body = SNIPPET.sub(lambda part: (ROOT / part[1]).read_text(encoding="utf-8"), body)
        found.append(Block(start, opened["info"].strip().split(" ")[0], body))
        number += 1
    return found


def prose(text: str) -> str:
    """Return a page without its blocks and its code in lines."""
    kept, fence = [], ""
    for line in text.splitlines():
        found = FENCE.match(line)
        if fence:
            fence = "" if line.strip() == fence else fence
        elif found:
            fence = found["fence"]
        else:
            kept.append(line)
    return re.sub(r"(`+)(?!`).+?\1", "`code`", "\n".join(kept))


def links(text: str) -> Iterator[str]:
    """Yield the targets of links and pictures."""
    for found in LINK.finditer(prose(text)):
        yield found[1] or found[2]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    made: set[str] = set()
    for heading in HEADING.findall(re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        made.add(re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", plain.lower()).strip()))
    return made
