"""The same images are not counted twice: not after some were forgotten, nor without fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.membership import LINEAGE, lineage, open_key
from d3hr_datasets.build import KeptSums
from d3hr_datasets.combine import ForgetOptions, forget_images, merge_artifacts
from d3hr_datasets.errors import CombineError
from tests.support.combining import Pictures, artifact_of, build, latents, quiet
from tests.support.tampering import change_info

CPU = ForgetOptions(device="cpu")
TWICE = "of the same images, or of what is left of them .*would be counted twice"


def _built(folder: Path, start: int = 0, **options: Any) -> Artifact:
    noted = KeptSums(folder.with_name(f"{folder.name}.membership"))
    return build(folder, range(start, start + 30), sums=noted, **options)


def _without(artifact: Artifact, number: int, output: Path, noted: Path | None = None) -> Artifact:
    path = noted or artifact.folder.with_name(f"{artifact.folder.name}.membership")
    return forget_images(artifact, Pictures([number]), output, membership=path, options=CPU, notify=quiet)


def test_what_is_left_is_not_merged_with_what_it_is_of(tmp_path: Path) -> None:
    ours, theirs = _built(tmp_path / "ours"), _built(tmp_path / "theirs", 30)
    both = merge_artifacts([ours, theirs], tmp_path / "both", notify=quiet)
    left = _without(theirs, 30, tmp_path / "left")
    other = _without(theirs, 31, tmp_path / "other")
    less = _without(left, 33, tmp_path / "less", tmp_path / "left.membership")
    for pair in ([theirs, left], [left, other], [both, left], [less, theirs], [less, both]):
        with pytest.raises(CombineError, match=TWICE):
            merge_artifacts(pair, tmp_path / "no")
    assert merge_artifacts([ours, less], tmp_path / "fine", notify=quiet).info.counts == (18, 20, 20)
    again = _without(less, 34, tmp_path / "again", tmp_path / "less.membership")
    with pytest.raises(CombineError, match=TWICE):  # also through the part that had them
        merge_artifacts([tmp_path / "fine", again], tmp_path / "no")


def test_a_lineage_says_nothing_of_the_images_without_the_key(tmp_path: Path) -> None:
    artifact = _built(tmp_path / "all")
    fingerprint, found = (artifact.info.source[name] for name in ("fingerprint", LINEAGE))
    assert found == lineage(open_key(tmp_path / "membership.key"), fingerprint)
    assert found != lineage(b"another key", fingerprint)
    assert _without(artifact, 0, tmp_path / "left").info.source[LINEAGE] == found
    assert LINEAGE not in build(tmp_path / "plain", range(30), sums=KeptSums()).info.source


def test_statistics_without_fingerprint_are_known_in_what_they_were_merged_to(tmp_path: Path) -> None:
    parts = [artifact_of(tmp_path / f"p{n}", latents(30, n), torch.arange(30) % 3) for n in range(2)]
    for part in parts:
        change_info(part.folder, source={"name": "x", "imported": "statistics of somebody"})
    said: list[str] = []
    merged = merge_artifacts([part.folder for part in parts], tmp_path / "merged", notify=said.append)
    assert merged.info.source["imported"] == "statistics of somebody"
    assert sum("was imported" in sentence for sentence in said) == 2
    pairs: list[list[Any]] = [[parts[0].folder, parts[0].folder], [merged, parts[1].folder]]
    for pair in pairs:
        with pytest.raises(CombineError, match=TWICE):
            merge_artifacts(pair, tmp_path / "no")


def test_builds_that_stopped_early_are_doubted_also_after_forgetting_and_merging(tmp_path: Path) -> None:
    named = {"info": {"source": {"name": "x"}}}
    stopped = build(
        tmp_path / "a",
        range(60),
        sums=KeptSums(tmp_path / "a.membership"),
        tolerance=0.35,
        batch_size=8,
        **named,
    )
    number = next(n for n in range(60) if _is_counted(stopped, n, tmp_path / "left"))
    left, other = (
        Artifact.load(tmp_path / "left"),
        build(tmp_path / "b", range(60, 90), sums=KeptSums(), **named),
    )
    assert number >= 0 and left.info.tolerance is None and left.info.source["tolerance"] == 0.35
    third = build(tmp_path / "c", range(90, 120), sums=KeptSums(), **named)
    both = merge_artifacts([left, other], tmp_path / "both", notify=quiet)
    for number, pair in enumerate([[left, other], [both, third]]):
        said: list[str] = []
        merge_artifacts(pair, tmp_path / f"m{number}", notify=said.append)
        assert any("those that both may have used count twice" in sentence for sentence in said)


def _is_counted(artifact: Artifact, number: int, output: Path) -> bool:
    """Forget an image, if it was counted."""
    try:
        _without(artifact, number, output)
    except CombineError:
        return False
    return True
