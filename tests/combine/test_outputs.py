"""What merging and forgetting write, and what is in the way of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.build import KeptSums
from d3hr_datasets.combine import ForgetOptions, forget_images, merge, merge_artifacts
from d3hr_datasets.combine.class_union import unite_classes
from d3hr_datasets.errors import ArtifactIntegrityError, ConfigError
from tests.support.combining import Pictures, artifact_of, build, latents, of_prompts, quiet

CPU = ForgetOptions(device="cpu")


def _parts(tmp_path: Path) -> list[Any]:
    return [artifact_of(tmp_path / f"p{n}", latents(30, n), torch.arange(30) % 3) for n in range(2)]


def _loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def _in_a_file(path: Path) -> Path:
    path.write_text("text")
    return path / "merged"


@pytest.mark.parametrize("output", [lambda path: path.with_name(300 * "x"), _loop, _in_a_file])
def test_outputs_that_can_be_no_folders_are_refused_first(
    output: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, place = _parts(tmp_path), output(tmp_path / "out")
    monkeypatch.setattr(merge, "sums_of_part", lambda part: pytest.fail("it has begun"))
    with pytest.raises(ConfigError, match=r"can be no folder: .*give one in a folder that you may write"):
        merge_artifacts(parts, place)


def test_an_output_may_be_a_link_to_an_empty_folder_or_to_none(tmp_path: Path) -> None:
    parts = _parts(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none"):
        (tmp_path / "link").symlink_to(tmp_path / name)
        merge_artifacts(parts, tmp_path / "link", notify=quiet)
        assert (tmp_path / name / METADATA).is_file() and (tmp_path / "link").is_symlink()
        (tmp_path / "link").unlink()


def test_a_linked_folder_in_a_part_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    parts = [build(tmp_path / "a", range(30), sums=KeptSums(noted)), build(tmp_path / "b", range(30, 60))]
    (tmp_path / "a" / "previews").symlink_to(tmp_path / "b")
    with pytest.raises(ArtifactIntegrityError, match="is a link to a folder"):
        merge_artifacts(parts, tmp_path / "merged", notify=quiet)
    with pytest.raises(ArtifactIntegrityError, match="is a link to a folder"):
        forget_images(parts[0], Pictures([0]), tmp_path / "left", membership=noted, options=CPU, notify=quiet)
    assert not (tmp_path / "merged").exists() and not (tmp_path / "left").exists()


def test_a_model_that_changes_while_it_is_copied_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [build(tmp_path / f"p{n}", range(30 * n, 30 * n + 30)) for n in range(2)]
    copy = shutil.copyfile

    def changed(source: Path, target: Path) -> None:
        copy(source, target)
        if target.name == "config.json":
            target.write_text(target.read_text() + " ")

    monkeypatch.setattr("d3hr_datasets.combine.written_artifact.shutil.copyfile", changed)
    with pytest.raises(ArtifactIntegrityError, match=r"config\.json has changed while it was copied"):
        merge_artifacts(parts, tmp_path / "merged", notify=quiet)
    assert not (tmp_path / "merged").exists()


def test_many_parts_of_many_classes_say_how_many_images_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = _parts(tmp_path)
    few = merge_artifacts(parts, tmp_path / "few", notify=quiet)
    assert [part["counts"] for part in few.info.source["parts"]] == [[10, 10, 10]] * 2
    monkeypatch.setattr(merge, "MAX_COUNTS", 5)
    many = merge_artifacts(parts, tmp_path / "many", notify=quiet)
    assert [part["counts"] for part in many.info.source["parts"]] == [30, 30]
    third = artifact_of(tmp_path / "third", latents(30, 7), torch.arange(30) % 3)
    more = merge_artifacts([many, third], tmp_path / "more", notify=quiet)
    assert [part["counts"] for part in more.info.source["parts"]] == [30, 30, [10, 10, 10]]


def test_many_classes_are_united(tmp_path: Path) -> None:
    names = [f"class {n}" for n in range(20_000)]
    halves = [names[:15_000], names[10_000:]]
    parts: list[Any] = [
        SimpleNamespace(folder=tmp_path, info=SimpleNamespace(wnids=tuple(half), **of_prompts(*half)))
        for half in halves
    ]
    found = unite_classes(parts)
    assert found.names == tuple(names) and found.wnids == tuple(names)
    assert found.labels[1][:2] == (10_000, 10_001)


def test_it_is_said_how_many_images_went_and_which_are_still_there(tmp_path: Path) -> None:
    class Both(Pictures):
        """Image 1 is counted in its own class, and in class 0."""

        def __init__(self) -> None:
            super().__init__([*range(30), 1, 1])
            self.targets[-1] = 0

    noted = tmp_path / "noted"
    artifact = build(tmp_path / "all", range(30), sums=KeptSums(noted), images=Both())
    said: list[str] = []
    forget_images(
        artifact, Pictures([0, 1]), tmp_path / "left", membership=noted, options=CPU, notify=said.append
    )
    assert said[0].startswith("2 different images were read, which were counted 3 times, and are taken out")
    assert "still there: image 1 in 'ant'" in said[1]
