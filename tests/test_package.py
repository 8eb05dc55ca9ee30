from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import d3hr_datasets
from d3hr_datasets import errors
from d3hr_datasets.dataset.artifact_registry import REGISTRY, embedded_artifact
from d3hr_datasets.dataset.image_generator import PIXELS_VERSION

REPOSITORY = Path(__file__).resolve().parent.parent

IMPORT = """
import sys

import d3hr_datasets

assert "torch" not in sys.modules
heavy = {"diffusers", "transformers", "datasets", "timm", "accelerate", "scipy", "matplotlib", "pandas"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
dataset = d3hr_datasets.D3HRDataset(sys.argv[1], sys.argv[2], ipc=2)
assert len(dataset) == 6 and repr(dataset) and len(dataset.sample_latents(0)) == 2
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert "d3hr_datasets.build.build" not in sys.modules
"""


def test_import_and_construction_are_light(tiny_artifact: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", IMPORT, str(tiny_artifact), str(tmp_path / "root")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_windows_is_refused_by_name() -> None:
    code = """
import sys
sys.platform = "win32"
try:
    import d3hr_datasets
except ImportError as error:
    bases = [kind.__name__ for kind in type(error).__mro__]
    print(bases, "torch" in sys.modules, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "'UnsupportedPlatformError', 'D3HRError', 'ImportError'" in done.stdout
    assert "False d3hr-datasets does not run on Windows" in done.stdout and "WSL" in done.stdout
    assert "flock" in done.stdout


def test_public_names_exist() -> None:
    names = vars(d3hr_datasets)["__all__"]
    assert len(set(names)) == len(names) and "D3HRDataset" in names
    for name in names:
        assert getattr(d3hr_datasets, name).__doc__
    assert set(names) <= set(dir(d3hr_datasets))
    with pytest.raises(AttributeError, match="D3HRNothing"):
        getattr(d3hr_datasets, "D3HRNothing")  # noqa: B009 (mypy knows that it is none)


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (errors.ConfigError, ValueError),
        (errors.MissingExtraError, errors.ConfigError),
        (errors.MissingExtraError, ImportError),
        (errors.ArtifactNotFoundError, FileNotFoundError),
        (errors.ArtifactFormatError, ValueError),
        (errors.ArtifactIntegrityError, errors.ArtifactFormatError),
        (errors.ModelNotFoundError, FileNotFoundError),
        (errors.ModelFormatError, ValueError),
        (errors.StatisticsError, ValueError),
        (errors.BuildError, RuntimeError),
        (errors.SourceError, ValueError),
        (errors.UnreadableImageError, ValueError),
        (errors.RealTestSetError, RuntimeError),
        (errors.UnsupportedPlatformError, ImportError),
        (errors.CacheError, RuntimeError),
        (errors.ExportError, RuntimeError),
        (errors.CacheMissError, errors.CacheError),
    ],
)
def test_errors_derive_from_the_library_and_from_a_builtin(
    error: type[Exception], base: type[Exception]
) -> None:
    assert issubclass(error, errors.D3HRError) and issubclass(error, base)


def test_every_error_is_one_of_the_library() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 10 and all(issubclass(kind, errors.D3HRError) for kind in kinds)


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what CFF 1.2.0 requires
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["version"] == d3hr_datasets.__version__
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["license"], citation["authors"]) == (project["license"], project["authors"])
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)  # likewise, of a reference
    assert paper["title"] == "Taming Diffusion for Dataset Distillation with High Representativeness"
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2505.18399"}]
    assert project["urls"] == {"Paper": paper["url"]}


def test_the_changelog_has_this_version_and_the_number_of_the_pixels() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## [")]
    assert headings[:2] == ["## [Unreleased]", f"## [{d3hr_datasets.__version__}]"]
    assert f"It is {PIXELS_VERSION} now." in text


def test_the_classifiers_name_no_system_that_is_refused() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    systems = [line for line in tomllib.loads(text)["project"]["classifiers"] if "Operating System" in line]
    assert systems == ["Operating System :: MacOS", "Operating System :: POSIX :: Linux"]


def test_unreadable_image_is_no_os_error() -> None:
    assert not issubclass(errors.UnreadableImageError, OSError)


def test_unknown_data_sets_are_named_with_the_known_ones() -> None:
    with pytest.raises(errors.ArtifactNotFoundError, match=r"imagenette-of-tests.*fashion-mnist"):
        embedded_artifact("imagenette-of-tests")


def test_missing_embedded_artifact_says_where_it_was_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    row = type(REGISTRY["fashion-mnist"])("fashion-mnist", "not-there")
    monkeypatch.setitem(REGISTRY, "fashion-mnist", row)
    with pytest.raises(errors.ArtifactNotFoundError, match="not-there"):
        embedded_artifact("fashion-mnist")
