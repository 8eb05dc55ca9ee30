from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from d3hr_datasets.build.joined_processes import join_processes
from d3hr_datasets.errors import MissingExtraError
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.sources.huggingface import open_dataset

ROOT = Path(__file__).resolve().parents[2]


def test_a_library_that_is_there_is_imported() -> None:
    with needs_extra("build", "this needs JSON"):
        import json
    assert json.loads("1") == 1


def test_a_missing_library_is_named_with_what_needs_it_and_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    requirements = ["torch", "accelerate>=1.0; extra == 'build'", 'x<3;extra=="build"', "y; extra == 'dev'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    message = (
        r"building needs Accelerate: .*accelerate.*; `pip install 'accelerate>=1.0' 'x<3'` installs the "
        r"libraries of the extra 'build'$"
    )
    with pytest.raises(MissingExtraError, match=message) as caught:
        join_processes()
    assert isinstance(caught.value.__cause__, ImportError)


def test_without_metadata_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    message = "needs nothing: no x; install the libraries that pyproject.toml lists as the extra 'build'"
    with pytest.raises(MissingExtraError, match=message), needs_extra("build", "this needs nothing"):
        raise ImportError("no x")


def test_nobody_is_told_to_install_this_package_by_its_name() -> None:
    """It is on no index: whoever registers the name there would be installed."""
    for path in (ROOT / "d3hr_datasets").rglob("*.py"):
        commands = re.findall(r"pip install[^`\n]*", path.read_text(encoding="utf-8"))
        assert not [command for command in commands if "d3hr" in command], path


def test_a_source_without_datasets_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"'datasets:' .* the extra 'build'"):
        open_dataset(str(tmp_path), "train")


@pytest.mark.parametrize("module", ["models", "teachers", "accelerator"])
def test_students_without_their_libraries_say_what_to_install(module: str) -> None:
    code = f"""
import sys
sys.modules.update(timm=None, accelerate=None)
from d3hr_datasets.errors import MissingExtraError
try:
    import d3hr_datasets.students.{module} as students
    students.default_accelerator()
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the extra 'train'" in done.stdout


def test_other_errors_of_the_import_are_not_taken_for_a_missing_library() -> None:
    with pytest.raises(OSError, match="libcuda"), needs_extra("build", "building needs Accelerate"):
        raise OSError("libcuda.so: cannot open shared object file")


def test_the_extras_that_messages_name_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "d3hr_datasets").rglob("*.py")]
    named = {
        line.split('"')[1] for text in sources for line in text.split("\n") if "with needs_extra(" in line
    }
    assert named == {"adapt", "build", "export", "private", "report", "text", "train"} and named <= set(
        extras
    )
