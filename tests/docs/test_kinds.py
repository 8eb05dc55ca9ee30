"""Every kind of model has its row in the documentation, and no other has one."""

from __future__ import annotations

import re

from d3hr_datasets.diffusion.kinds.table import KINDS
from tests.docs.pages import DOCS, ROOT

GUIDE = DOCS / "guides" / "diffusion-models.md"


def test_the_guide_has_a_row_for_each_kind_with_its_pipelines() -> None:
    section = GUIDE.read_text(encoding="utf-8").split("## Which models")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| ([^|]+?) \| (`\w+Pipeline`.*?) \|", section, re.MULTILINE))
    assert rows == {kind.name: ", ".join(f"`{name}`" for name in kind.pipelines) for kind in KINDS}


def test_the_readme_names_each_kind() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for kind in KINDS:
        assert kind.name in text, kind.name
