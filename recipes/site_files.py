"""What the documentation site shows of other folders: files outside docs/ -> pages and pictures of the site.

A hook of mkdocs. A page of docs/ links to such a file as the repository has it (`../hub/results/...`). On the
site the file keeps its path below the root of the repository, and the link is made to lead there.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SHOWN = (
    "CONTRIBUTING.md",
    "recipes/IMAGENET.md",
    "hub/results/SYSTEMS.md",
    "hub/results/tables/*.md",
    "hub/results/accuracy_by_bytes.png",
    "hub/d3hr-fashion-mnist/contact-sheet.png",
)
LINK = re.compile(r"(\]\()(\.\./[^)#\s]+)")


def shown_files() -> list[str]:
    """Return the files outside docs/ that the site shows, as paths below the root of the repository."""
    return [path.relative_to(ROOT).as_posix() for pattern in SHOWN for path in sorted(ROOT.glob(pattern))]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that the site shows to those of docs/."""
    for name in shown_files():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page of docs/ whose links to these files lead to where the site has them."""
    depth = page.file.src_uri.count("/")
    above = "../" * (depth + 1)

    def on_site(found: re.Match[str]) -> str:
        target = found[2]
        name = target.removeprefix(above)
        if name != target and files.get_file_from_path(name) is not None:
            return f"{found[1]}{'../' * depth}{name}"
        return found[0]

    return LINK.sub(on_site, markdown)
