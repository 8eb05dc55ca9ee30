from __future__ import annotations

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
    message = r"building needs Accelerate: .*accelerate.*; `pip install 'd3hr-datasets\[build\]'`"
    with pytest.raises(MissingExtraError, match=message) as caught:
        join_processes()
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_source_without_datasets_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"'datasets:' .*pip install 'd3hr-datasets\[build\]'"):
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
    assert "pip install 'd3hr-datasets[train]'" in done.stdout


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
    assert named == {"build", "export", "report", "train"} and named <= set(extras)
