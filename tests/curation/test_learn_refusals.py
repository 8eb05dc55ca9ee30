"""What learning refuses before anything is made, and what is not done with learned means."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets import Artifact, Budget, GroupSamplingConfig
from d3hr_datasets.artifact import copy_with_budgets
from d3hr_datasets.combine import forget_images, merge_artifacts
from d3hr_datasets.curation import LearningSettings
from d3hr_datasets.curation.matching import Matcher
from d3hr_datasets.errors import CombineError, ConfigError, ExportError
from tests.cli.test_cli import fail
from tests.support.curated import save_separate_artifact
from tests.support.learning import learn, learned


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ipc": ()}, "ipc must be 1 to 100 different numbers"),
        ({"ipc": (1, 1)}, "ipc must be 1 to 100 different numbers"),
        ({"ipc": (0,)}, "ipc must be at least 1, not 0"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"max_shift": 0.0}, "max_shift must be more than 0"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        LearningSettings(**changes)


def test_artifacts_without_modes_or_with_learned_means_are_refused(tmp_path: Path, photos: Path) -> None:
    plain = save_separate_artifact(tmp_path / "plain", num_modes=1)
    with pytest.raises(ConfigError, match="stores no modes, whose means"):
        learn(plain, tmp_path / "new", photos)
    again = save_separate_artifact(tmp_path / "again", learned=learned())
    with pytest.raises(ConfigError, match=r"has learned means already.*0123456789abcdef"):
        learn(again, tmp_path / "new", photos)
    assert not (tmp_path / "new").exists()


def test_sizes_that_are_not_sampled_from_modes_are_refused(
    artifact: Artifact, photos: Path, tmp_path: Path
) -> None:
    rule = Budget(1, None, GroupSamplingConfig("moment_matched"))
    ruled = copy_with_budgets(artifact, [rule], tmp_path / "ruled")
    with pytest.raises(ConfigError, match=r"ipc = 1 cannot be learned: by a rule .*'moment_matched'"):
        learn(ruled, tmp_path / "new", photos)
    made = learn(ruled, tmp_path / "new", photos, ipc=(2,), iterations=1)
    assert made.info.budgets == (rule,)
    by_default = learn(ruled, tmp_path / "by-default", photos, ipc=None, iterations=1)
    assert by_default.info.learned is not None and by_default.info.learned.ipc == (10,)
    both = learn(artifact, tmp_path / "both", photos, ipc=None, iterations=1)
    assert both.info.learned is not None and both.info.learned.ipc == (1, 10)
    none = copy_with_budgets(artifact, [dataclasses.replace(rule, max_ipc=10)], tmp_path / "none")
    with pytest.raises(ConfigError, match="ipc = 1 cannot be learned"):
        learn(none, tmp_path / "no", photos, ipc=None)


def test_images_and_places_are_checked_first(artifact: Artifact, photos: Path, tmp_path: Path) -> None:
    for path in (photos / "cat").iterdir():
        target = tmp_path / "fewer" / "cat" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match="class label 0 has 0 images"):
        learn(artifact, tmp_path / "new", tmp_path / "fewer")
    with pytest.raises(ConfigError, match="is in the folder of the artifact"):
        learn(artifact, artifact.folder / "new", photos)
    with pytest.raises(ExportError):
        learn(artifact, photos, photos)
    assert "--max-shift" in fail(1, "learn", artifact.folder, *_options(photos, tmp_path, "--max-shift", 0))


def _options(photos: Path, folder: Path, *further: object) -> tuple[object, ...]:
    return ("--images", photos, "--output", folder / "new", *further)


def test_an_interruption_leaves_nothing(
    artifact: Artifact, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = Matcher.loss, []

    def loss(self: Matcher, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 30:  # in a step, after the held draws
            raise KeyboardInterrupt
        return before(self, *arguments)

    monkeypatch.setattr(Matcher, "loss", loss)
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(KeyboardInterrupt):
        learn(artifact, place / "new", photos)
    assert list(place.iterdir()) == []


def test_learned_means_are_neither_merged_nor_forgotten_of(artifact: Artifact, tmp_path: Path) -> None:
    """What one image added to them cannot be taken away; the artifact before them is named."""
    folder = save_separate_artifact(tmp_path / "learned", learned=learned()).folder
    says = "has learned means of modes.*learned from, of fingerprint 0123456789abcdef, and learn again"
    for parts in ([folder, artifact.folder], [artifact.folder, folder]):
        with pytest.raises(CombineError, match=says):
            merge_artifacts(parts, tmp_path / "merged")
    with pytest.raises(CombineError, match=says):
        forget_images(folder, tmp_path, tmp_path / "left", membership=tmp_path / "none")
    assert not (tmp_path / "merged").exists() and not (tmp_path / "left").exists()
