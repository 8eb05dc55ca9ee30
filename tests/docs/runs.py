"""A run of a page: its blocks one after another in one folder -> what its Python has made.

Python runs in this process, in one namespace; commands run as a reader's do. Both see the same caches.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import yaml
from huggingface_hub import constants

from tests.docs.commands import only_formal, parse, run
from tests.docs.pages import LANGUAGES, ROOT, Block, blocks
from tests.docs.setups import SETUPS, nothing

EXPORT = re.compile(r"export( +\w+=[\w./:-]+)+")


def run_page(
    name: str, text: str, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Run all blocks of a page.

    Args:
        name: Path of the page below the root of the repository.
        text: The page.
        folder: Where it runs, empty.
        cache: Of the images that any page generates.
        monkeypatch: Of the test.

    Returns:
        The names that its Python has made.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    base = {
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "HF_ASSETS_CACHE": str(cache),
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }
    monkeypatch.chdir(folder)
    with SETUPS.get(name, nothing)(folder) as surroundings:
        environment = base | surroundings.environment
        in_this_process(environment, monkeypatch)
        for block in blocks(text):
            found = dataclasses.replace(block, text=replaced(block.text, surroundings.placeholders))
            try:
                _run_block(found, names, folder, environment, monkeypatch)
            except Exception as error:
                error.add_note(f"in the block of {name}, line {block.line}")
                raise
    return names


def _run_block(
    block: Block,
    names: dict[str, Any],
    folder: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert block.language in LANGUAGES, f"{block.language!r} is none of {sorted(LANGUAGES)}"
    if block.language == "python":
        exec(compile(block.text, f"block of line {block.line}", "exec"), names)
    elif block.language == "console":
        for command in parse(block.text):
            if EXPORT.fullmatch(command.line):
                exported = dict(pair.split("=", 1) for pair in command.line.split()[1:])
                environment |= exported
                in_this_process(exported, monkeypatch)
            elif not only_formal(command):
                run(command, folder, environment)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)


def replaced(text: str, placeholders: Mapping[str, str]) -> str:
    """Return a text with what placeholders stand for, the longest ones first."""
    for name in sorted(placeholders, key=len, reverse=True):
        word = rf"(?<![\w/-]){re.escape(name)}(?![\w-])"
        text = re.sub(word, lambda _, name=name: placeholders[name], text)  # type: ignore[misc]
    return text


def in_this_process(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set variables here; huggingface_hub has read its own when it was imported."""
    mpl.use("Agg")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        if name == "HF_ENDPOINT":
            monkeypatch.setattr(constants, "ENDPOINT", value)
            template = value + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        elif name.startswith("HF_") and hasattr(constants, name):
            known = getattr(constants, name)
            monkeypatch.setattr(constants, name, value == "1" if isinstance(known, bool) else value)
