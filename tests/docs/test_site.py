"""The site: it builds without a warning, and its pages load nothing from other hosts."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from recipes.site_files import shown_files
from tests.docs.pages import ROOT, name_of, pages

LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=\"([^\"]*)\""
    r"|<link\b(?=[^>]*\brel=\"(?:stylesheet|preload|preconnect|icon|dns-prefetch|modulepreload)\")[^>]*\bhref=\"([^\"]*)\""
)
OF_STYLES = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")
LINK = re.compile(r"<a\b[^>]*\bhref=\"([^\"]*)\"")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def loaded(text: str) -> list[str]:
    """Return what a page loads."""
    return [html.unescape(found[1] or found[2]) for found in LOADED.finditer(text)]


def test_every_page_is_there(site: Path) -> None:
    for page in pages():
        if page.is_relative_to(ROOT / "docs"):
            name = Path(name_of(page)).relative_to("docs").with_suffix(".html")
            assert (site / name).is_file(), name
    for shown in map(Path, shown_files()):
        assert (site / shown).with_suffix(".html" if shown.suffix == ".md" else shown.suffix).is_file()


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    found = {
        f"{path.relative_to(site)}: {address}"
        for path in sorted(site.rglob("*.html"))
        for address in loaded(path.read_text(encoding="utf-8"))
        if re.match(r"(?:\w+:)?//", address)
    }
    styles = {
        f"{path.relative_to(site)}: {first or second}"
        for path in sorted(site.rglob("*.css"))
        for first, second in OF_STYLES.findall(path.read_text(encoding="utf-8"))
        if re.match(r"(?:https?:)?//", first or second)
    }
    assert found | styles == set()


def test_what_pages_load_and_link_is_there(site: Path) -> None:
    missing = set()
    for path in sorted(site.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        for address in [*loaded(text), *map(html.unescape, LINK.findall(text))]:
            target = unquote(address.partition("#")[0].partition("?")[0])
            if not target or re.match(r"\w+:", target) or path.name == "404.html":
                continue
            if not (path.parent / target).resolve().exists():
                missing.add(f"{path.relative_to(site)}: {address}")
    assert missing == set()


def test_the_api_shows_arguments_with_their_types(site: Path) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", "", (site / "api" / "datasets.html").read_text(encoding="utf-8")))
    types = r"\(?\s*GroupSamplingConfig\s*\|\s*GroupSamplingMethod\s*\|\s*None"  # on one line or several
    assert re.search(rf"sampling:\s*{types}", text)
    for page, shape in (("sampling", "(ipc, *latent) float32"), ("artifacts", "(K, M, C, H, W)")):
        assert shape in (site / "api" / f"{page}.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        '<script async src="https://cdn.example/a.js"></script>',
        '<link rel="preload stylesheet" href="https://x.example/a.css">'.replace("preload ", ""),
        '<link href="//x.example/font" rel="stylesheet">',
        '<img alt="" src="http://x.example/a.png">',
    ],
)
def test_other_hosts_are_recognised(text: str) -> None:
    assert re.match(r"(?:\w+:)?//", loaded(text)[0])
