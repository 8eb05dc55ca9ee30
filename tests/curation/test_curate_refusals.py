"""What `curate_artifact` refuses before it makes anything, and what it says of the teacher."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from d3hr_datasets import Artifact, Budget, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.artifact import copy_with_budgets
from d3hr_datasets.curation.candidates import CandidateMaker
from d3hr_datasets.errors import ConfigError, ExportError, TeacherError
from d3hr_datasets.students.teachers import load_teacher
from tests.cli.test_cli import fail
from tests.curation.curating import curate
from tests.support.curated import save_teacher
from tests.support.tiny import CLASSES
from tests.support.workers import file_digests


def test_teachers_of_other_classes_are_refused(artifact: Artifact, teacher: str, tmp_path: Path) -> None:
    output = tmp_path / "new"
    names = save_teacher(artifact, tmp_path / "names", tmp_path / "work", ("ant", "dog", "cat"))
    with pytest.raises(TeacherError, match=r"does not know the classes \['bee/wasp'\]"):
        curate(artifact, f"local-dir:{names}", output)
    # The same names for other outputs: only the images tell.
    order = save_teacher(
        artifact, tmp_path / "order", tmp_path / "work", (CLASSES[1], CLASSES[2], CLASSES[0])
    )
    with pytest.raises(
        TeacherError, match=r"takes \d+ of 48 images of the first 3 classes .* fewer than half"
    ):
        curate(artifact, f"local-dir:{order}", output)
    with pytest.raises(TeacherError, match="has logits of 2 classes, the artifact tiny has 3"):
        curate(artifact, load_teacher(teacher, CLASSES[:2]), output)
    assert not output.exists()


def test_a_teacher_whose_name_cannot_be_stored_is_refused_first(
    artifact: Artifact, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(teacher.removeprefix("local-dir:"), tmp_path / "tiny\nteacher")

    def refuse(*args: object) -> None:
        raise AssertionError("candidates were made")

    monkeypatch.setattr(CandidateMaker, "judge", refuse)
    with pytest.raises(ConfigError, match=r"the teacher's name.* printable characters, not 'local-dir:tiny"):
        curate(artifact, f"local-dir:{folder}", tmp_path / "new")


def test_the_checksum_is_that_of_the_weights(artifact: Artifact, teacher: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(teacher.removeprefix("local-dir:"), tmp_path / "teacher"))
    digests = []
    for factor in (1.0, 1.001):
        path = copy / "model.safetensors"
        state = {name: tensor.clone() for name, tensor in load_file(path).items()}
        path.unlink()
        name = min(state)
        save_file({**state, name: state[name] * factor}, path)
        made = curate(artifact, f"local-dir:{copy}", tmp_path / f"{factor}", num_candidates=8)
        assert made.info.curation is not None
        digests.append(made.info.curation.teacher_sha256)
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_kept": 17}, "num_kept must be at most num_candidates = 16, not 17"),
        ({"num_kept": 0}, "num_kept must be at least 1"),
        ({"num_candidates": 10**6}, "num_candidates must be from 1 to 65536"),
        ({"method": "best"}, "method must be one of"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"mode_spread": -1.0}, "mode_spread must be at least 0"),
        ({"difficulty_weight": -1.0}, "difficulty_weight must be at least 0"),
        ({"difficulty_weight": 1.0, "method": "random"}, "has no part in method='random'"),
        ({"difficulty_spread": 1.0, "method": "random"}, "difficulty_spread has no part in"),
        ({"difficulty_spread": -1.0}, "difficulty_spread must be at least 0"),
        ({"decode": DecodeConfig(300, 10)}, r"decode\.timestep 300 is not stored"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], says: str, artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        curate(artifact, "not asked for", tmp_path / "new", **changes)


def test_rules_that_the_new_order_would_not_fit_are_said_first(curated: Artifact, tmp_path: Path) -> None:
    warm = dataclasses.replace(curated.info.decode, guidance_scale=3.0)
    ruled = copy_with_budgets(curated, [Budget(6, warm, GroupSamplingConfig("curated"))], tmp_path / "ruled")
    changed: list[tuple[dict[str, Any], str]] = [
        ({"num_kept": 5}, "num_kept must be at least 6, not 5: a rule of the artifact tiny .*d3hr budgets"),
        (
            {"decode": DecodeConfig(200, 10)},
            r"decode\.timestep must be 400, not 200: a rule .* from there",
        ),
    ]
    for changes, says in changed:
        with pytest.raises(ConfigError, match=says):
            curate(ruled, "not asked for", tmp_path / "new", **changes)
    says = "--keep must be at least 6, not 5"
    options = ("--teacher", "nobody", "--candidates", 8, "--keep", 5, "--output", tmp_path / "new")
    assert says in fail(1, "curate", ruled.folder, *options)


def test_copies_lie_outside_and_are_made_by_one_process(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file_digests(artifact.folder)
    for place in (artifact.folder, artifact.folder / "new"):
        with pytest.raises(ConfigError, match="is in the folder of the artifact"):
            curate(artifact, "not asked for", place)
    assert file_digests(artifact.folder) == before
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ExportError, match="a copy of an artifact is made by one process"):
        curate(artifact, "not asked for", tmp_path / "new")
    with pytest.raises(ExportError, match="a copy of an artifact is made by one process"):
        copy_with_budgets(artifact, [], tmp_path / "new")
