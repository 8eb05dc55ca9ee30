"""Every command, module and file of this repository that is named somewhere is there."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipes.tables import trainings

ROOT = Path(__file__).parents[2]
PLACES = (
    "README.md",
    "CONTRIBUTING.md",
    "Makefile",
    "docs/**/*.md",
    "hub/**/*.md",
    "recipes/**/*.md",
    "recipes/**/*.py",
    "recipes/**/*.yaml",
    "d3hr_datasets/**/*.py",
    "tests/**/*.py",
)
COMMAND = re.compile(r"(?:-m\s+|\$\(RUN\) )((?:recipes|tests)(?:\.\w+)+)")
MODULE = re.compile(r"`((?:recipes|tests|d3hr_datasets)(?:\.\w+)+)`")
# Placeholders are in capitals.
FILE = re.compile(r"(?<![\w/.-])((?:recipes|tests|d3hr_datasets)/[\w./-]+\.(?:py|yaml|md))(?![\w*{])")


def texts() -> Iterator[tuple[str, str]]:
    """Yield every file that may name a command, and what it says."""
    for place in PLACES:
        for path in sorted(ROOT.glob(place)):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_commands_exist() -> None:
    named = {(place, name) for place, text in texts() for name in COMMAND.findall(text)}
    assert len({name for _, name in named}) > 20
    assert {found for found in named if not is_module(found[1])} == set()


def test_modules_in_documents_exist() -> None:
    documents = [(place, text) for place, text in texts() if place.endswith(".md")]
    named = {(place, name) for place, text in documents for name in MODULE.findall(text)}
    assert len(named) >= 3
    assert {found for found in named if not is_module(found[1])} == set()


def test_files_exist() -> None:
    named = {(place, name) for place, text in texts() for name in FILE.findall(text)}
    named = {(place, name) for place, name in named if not re.search(r"\b[A-Z]{2,}\b(?!\.md)|NAME", name)}
    assert len({name for _, name in named}) > 20
    assert {found for found in named if not (ROOT / found[1]).exists()} == set()


@pytest.mark.parametrize(
    ("there", "command"),
    [
        (["vae"], "python -m recipes.train.vae recipes/configs/decoder_fashion_mnist.yaml"),
        (["vae", "decoder"], "python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist.yaml"),
        (
            ["vae", "decoder", "dit"],
            "python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist_long.yaml",
        ),
        (
            ["vae", "decoder", "dit", "long"],
            "python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist_longer.yaml",
        ),
    ],
)
def test_a_training_that_is_missing_is_named(
    there: list[str], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = []
    for name in there:
        (tmp_path / name).mkdir()
        for part in ("settings.yaml", "metrics.csv"):
            (tmp_path / name / part).touch()
        arguments += [f"--{name}", str(tmp_path / name)]
    monkeypatch.setattr("sys.argv", ["trainings", *arguments])
    with pytest.raises(SystemExit) as raised:
        trainings.main()
    assert command in str(raised.value.code)


def test_a_training_of_another_day_keeps_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["VAE", "decoder", "DiT", "DiT, trained on", "DiT, trained on further"]
    known = {name: {"steps": 7} for name in names if name != "DiT, trained on"}
    output = tmp_path / "training.json"
    output.write_text(json.dumps({"settings": known, "results": known}))
    run = tmp_path / "long"
    run.mkdir()
    (run / "settings.yaml").write_text("log_every: 10\nbatch_size: 6\n")
    (run / "metrics.csv").write_text("step,mse,images_per_second\n10,0.5,1\n20,0.3,1\n")
    arguments = ["--long", str(run), "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["trainings", *arguments])
    trainings.main()
    results = json.loads(output.read_text())["results"]
    assert list(results) == names
    assert results["DiT"] == {"steps": 7}
    assert results["DiT, trained on"] == {"steps": 20, "minutes, about": 2.0, "last_mse": 0.4}
