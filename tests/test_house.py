"""The house: small files and functions, tests beside what they test, and a table of packages that is true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "d3hr_datasets"
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 300, 60
# Functions that are commands, with all their options.
COMMANDS = {
    "build/__main__.py:build",
    "cli/adapt.py:adapt",
    "cli/curate.py:curate",
    "cli/combine.py:forget",
    "cli/evaluate.py:evaluate",
    "cli/learn.py:learn",
    "cli/train.py:student",
}


def _sources() -> Iterator[Path]:
    for folder in (PACKAGE, ROOT / "recipes"):
        yield from sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("path", list(_sources()), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_and_its_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_OF_A_FILE
    assert "fmt: " + "skip" not in text
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            name = f"{path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path.name}:{node.name}"
            length = node.end_lineno - node.lineno + 1
            assert length <= LINES_OF_A_FUNCTION or name in COMMANDS, f"{name} has {length} lines"


def test_files_of_tests_are_short() -> None:
    """A function of theirs may be long: it is one case."""
    paths = sorted((ROOT / "tests").rglob("*.py"))
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert Path(__file__) in lengths
    assert {path: length for path, length in lengths.items() if length > LINES_OF_A_FILE} == {}


def _packages() -> set[str]:
    found = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    return found - {"__init__"}


def test_the_table_of_packages_is_that_of_the_contract() -> None:
    """CONTRIBUTING says in rows what import-linter checks, which asks for every package."""
    contract = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("\nlayers = [")[2].partition("]")[0]
    )
    rows = [line.split(" | ") for line in re.findall(r'"([^"]+)"', contract)]
    expected = {name: len(rows) - number for number, row in enumerate(rows) for name in row}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    stated = {name: int(row) for row, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)}
    assert stated == expected and stated.keys() == _packages()


def test_tests_mirror_the_packages() -> None:
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= folders <= packages | {"recipes", "docs", "benchmarks"}
