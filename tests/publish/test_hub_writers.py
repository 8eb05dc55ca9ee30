"""What writes to `hub/`, or to an artifact that is there, changes all of it or nothing."""

from __future__ import annotations

import errno
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Artifact
from d3hr_datasets.errors import ExportError
from d3hr_datasets.experiments import student_export, train_table
from d3hr_datasets.experiments.protocol_files import PROTOCOLS
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.io import atomic
from d3hr_datasets.io.atomic import replaced_folder
from d3hr_datasets.publish import card
from d3hr_datasets.publish.card import write_card
from d3hr_datasets.runs.settings_files import load_settings
from recipes.build import fashion_mnist as build_fashion_mnist
from recipes.common import mnist_digits
from recipes.evaluate import dit_xl
from tests.support.workers import file_digests

REPOSITORY = Path(__file__).resolve().parents[2]
ARTIFACT = Path("hub/d3hr-fashion-mnist")


def _remove(*names: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Have files missing from the copy of `hub/`."""

    def work(_: pytest.MonkeyPatch) -> None:
        for name in names:
            Path(name).unlink()

    return work


def _nothing(_: pytest.MonkeyPatch) -> None:
    """Leave the copy as it is: `data/` and `runs/` are missing."""


class _Images:
    """Stand for the real images."""

    classes = tuple("abcdefghij")

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[object, int]:
        raise AssertionError("no image is read")


def _images_alone(patch: pytest.MonkeyPatch) -> None:
    """Have the real images and no model."""
    patch.setattr(build_fashion_mnist, "fashion_mnist", lambda **_: _Images())


def _no_processes(patch: pytest.MonkeyPatch) -> None:
    """Have the process that a recipe starts fail."""

    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "python")

    patch.setattr(subprocess, "run", fail)
    patch.setattr(train_table, "ProcessPoolExecutor", fail)


def _no_memory(patch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise MemoryError

    patch.setattr(dit_xl, "make_transformer", fail)


def _no_digits(patch: pytest.MonkeyPatch) -> None:
    """Have the package that ships digits not installed."""
    patch.setattr(mnist_digits, "find_spec", lambda _: None)


def _unmarked_card(_: pytest.MonkeyPatch) -> None:
    path = ARTIFACT / "model" / "README.md"
    path.write_text(path.read_text(encoding="utf-8").replace("end of figures", "end"), encoding="utf-8")


STATISTICS = str(ARTIFACT / "statistics.safetensors")
TRANSFORMER = str(ARTIFACT / "model/transformer/diffusion_pytorch_model.safetensors")
VAE = str(ARTIFACT / "model/vae/config.json")
WITHOUT_IMAGES = ("copies", "diffusion", "inversion", "inversion_methods", "inversion_steps", "precision")
INTO_A_FOLDER = ("continual", "federated", "few_images", "gpu", "modes", "privacy", "tolerance")
# Each recipe that may write to `hub/`, its arguments, and what is missing.
CASES: list[tuple[str, list[str], Callable[[pytest.MonkeyPatch], None]]] = [
    ("build.fashion_mnist", [], _nothing),
    ("build.fashion_mnist", [], _images_alone),
    ("build.fashion_mnist", ["--model", "hub"], _images_alone),
    ("build.group_variants", ["--output", "work"], _remove(STATISTICS)),
    ("build.small", ["digits", "nowhere", "--work", "work"], _nothing),
    ("evaluate.dit_xl", ["--work", "work"], _no_memory),
    ("evaluate.build_memory", [], _no_processes),
    ("evaluate.dataset", [], _no_processes),
    *[(f"evaluate.{name}", [], _nothing) for name in WITHOUT_IMAGES],
    *[(f"evaluate.{name}", ["--work", "work"], _nothing) for name in INTO_A_FOLDER],
    ("evaluate.scale", ["--images-per-second", "0"], _nothing),
    ("evaluate.solvers", [], _remove(STATISTICS)),
    ("evaluate.storage", [], _remove(STATISTICS)),
    ("tables.students", ["recipes/configs/tables/hard-labels.yaml", "--jobs", "1"], _no_processes),
    ("evaluate.vae", [], _remove(VAE)),
    ("tables.accuracy_by_bytes", ["--tables", "nothing"], _nothing),
    ("tables.rank_architectures", ["hub/results/tables/nothing.json"], _nothing),
    ("release", ["org", "--dry-run"], _remove(STATISTICS)),
    ("evaluate.benchmarks", [], _no_processes),
    ("evaluate.training_speed", [], _no_processes),
    ("evaluate.adaption", ["--work", "work"], _no_digits),
    ("tables.trainings", [], _nothing),
    ("tables.write_cards", [], _remove("hub/results/tables/hard-labels.md")),
    ("tables.write_cards", [], _remove(TRANSFORMER)),
    ("tables.write_cards", [], _unmarked_card),
]
HELPERS = {
    "common.results",
    "evaluate.privacy_choice",
    "site_files",
    "tables.model_tables",
    "tables.result_tables",
    "tables.findings",
    "tables.training_costs",  # writes settings files of the package
}  # of the others


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of the repository's tracked results, without images and trained models."""
    folder = tmp_path / "copy"
    shutil.copytree(REPOSITORY / "hub", folder / "hub")
    shutil.copytree(REPOSITORY / "recipes" / "configs", folder / "recipes" / "configs")
    shutil.copy(REPOSITORY / "README.md", folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("d3hr_datasets.image_sets.real_images.DEBIAN_FASHION_MNIST", folder / "nowhere")
    return folder


def _state(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return inode, time and checksum of each file, without what git ignores."""
    digests = {name: found for name, found in file_digests(folder).items() if not name.startswith("runs/")}
    states = {name: (folder / name).stat() for name in digests}
    return {name: (states[name].st_ino, states[name].st_mtime_ns, digests[name]) for name in digests}


@pytest.mark.parametrize(("recipe", "arguments", "prepare"), CASES, ids=[case[0] for case in CASES])
def test_a_recipe_without_its_inputs_changes_nothing(
    recipe: str,
    arguments: list[str],
    prepare: Callable[[pytest.MonkeyPatch], None],
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare(monkeypatch)
    monkeypatch.setattr(sys, "argv", [recipe, *arguments])
    before = _state(copy)
    with pytest.raises((Exception, SystemExit)) as raised:
        importlib.import_module(f"recipes.{recipe}").main()
    assert not (isinstance(raised.value, SystemExit) and raised.value.code == 0), "it found what it needs"
    assert _state(copy) == before


def test_every_recipe_that_writes_to_hub_is_tried() -> None:
    writes = re.compile(r"[\"'`]hub/|write_results\(|write_text\(|replace_text\(|replaced_folder\(")
    recipes = {
        ".".join(path.relative_to(REPOSITORY / "recipes").with_suffix("").parts)
        for path in (REPOSITORY / "recipes").rglob("*.py")
        if writes.search(path.read_text(encoding="utf-8"))
    }
    assert recipes == {case[0] for case in CASES} | HELPERS


def _fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_build_that_fails_leaves_the_artifact(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Artifact.load(ARTIFACT).verify()
    shutil.copytree(ARTIFACT / "model", copy / "model")
    config = copy / "model" / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 32}))
    before, steps = _state(copy), []

    def build(source: object, model: object, folder: Path, *_: object, **__: object) -> None:
        steps.append(json.loads((folder / "model" / "vae" / "config.json").read_text())["sample_size"])
        (folder / "statistics.safetensors").unlink()
        _fail()

    _images_alone(monkeypatch)
    monkeypatch.setattr("d3hr_datasets.build.planning.build_artifact", build)
    monkeypatch.setattr(sys, "argv", ["build.fashion_mnist", "--model", str(copy / "model")])
    with pytest.raises(OSError, match="No space left"):
        build_fashion_mnist.main()
    assert steps == [32] and _state(copy) == before
    Artifact.load(ARTIFACT).verify()


def test_a_teacher_is_exported_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    folder = tmp_path / "teacher"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "README.md", "mine.txt"):
        (folder / name).write_text(name)
    before = _state(folder)
    settings = load_settings(
        StudentSettings, PROTOCOLS / "teacher" / "fashion-mnist.yaml", [f"export={folder}"]
    )
    result = {"top1": 1.0, "tested_on": "test set", "num_test_images": 1, "num_images": 1}
    model = torch.nn.Linear(1, 1)
    model.pretrained_cfg = {}  # type: ignore[assignment]
    monkeypatch.setattr(student_export, "save_for_hf", lambda *_, **__: _fail())
    with pytest.raises(OSError, match="No space left"):
        student_export.export_student(model, settings, ["a"], result)
    assert _state(folder) == before and [path.name for path in tmp_path.glob(".*")] == []

    def save(_: object, place: str, *__: object, **___: object) -> None:
        (Path(place) / "config.json").write_text("new")

    monkeypatch.setattr(student_export, "save_for_hf", save)
    student_export.export_student(model, settings, ["a"], result)
    assert (folder / "config.json").read_text() == "new" and (folder / "mine.txt").read_text() == "mine.txt"
    assert not (folder / "model.safetensors").exists() and "Top-1 1.00" in (folder / "README.md").read_text()


@pytest.mark.parametrize("function", ["replace_file", "contact_sheet", "Artifact"])
def test_a_card_is_written_whole_or_not_at_all(
    function: str, artifact_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = Artifact.load(artifact_copy)
    before = _state(artifact_copy)
    calls: list[object] = []

    def fail_late(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return _fail() if len(calls) == 3 or function != "replace_file" else whole(*arguments, **options)

    whole = getattr(card, function)
    with monkeypatch.context() as patch:
        patch.setattr(card, function, fail_late)
        with pytest.raises(OSError, match="No space left"):
            write_card(artifact, "org/tiny", root=tmp_path / "root", device="cpu", progress=False)
    assert calls and _state(artifact_copy) == before
    Artifact.load(artifact_copy).verify()
    (artifact_copy / "preview").mkdir()
    (artifact_copy / "preview" / "mine.txt").write_text("mine")
    write_card(artifact, "org/tiny", root=tmp_path / "root", device="cpu", progress=False)
    assert (artifact_copy / "preview" / "mine.txt").read_text() == "mine"
    Artifact.load(artifact_copy).verify()
    assert artifact.sha256 == Artifact.load(artifact_copy).sha256
    assert not [path for path in artifact_copy.parent.iterdir() if path.name.startswith(".artifact")]


def test_an_artifact_saved_over_another_is_that_or_this(
    artifact_copy: Path, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (artifact_copy / "statistics.safetensors").write_bytes(b"of another artifact")
    Artifact.load(artifact_copy).write_metadata()
    before, calls = _state(artifact_copy), []

    def copy_some(source: str, target: str) -> None:
        calls.append(source)
        Path(target).write_bytes(Path(source).read_bytes()) if len(calls) < 3 else _fail()

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", copy_some)
        with pytest.raises(ExportError, match="No space left"):
            Artifact.load(tiny_artifact).save_pretrained(artifact_copy)
    assert _state(artifact_copy) == before
    Artifact.load(tiny_artifact).save_pretrained(artifact_copy).verify()


def test_what_is_added_while_a_folder_is_copied_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("a")

    def copy(source: str, target: str) -> None:
        shutil.copy2(source, target)
        (folder / "mine").write_text("mine")

    monkeypatch.setattr(atomic, "_link_or_copy", copy)
    with replaced_folder(folder):
        pass
    (kept,) = tmp_path.glob("folder.*.old")
    assert (kept / "mine").read_text() == "mine" and "was changed" in caplog.text
