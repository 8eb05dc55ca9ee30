"""Artifacts whose builds stopped early: forgetting from them, and merging them."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3hr_datasets.build import KeptSums
from d3hr_datasets.build.early_stop import random_orders
from d3hr_datasets.combine import ForgetOptions, forget_images, merge_artifacts
from d3hr_datasets.errors import CombineError
from d3hr_datasets.sources.user_datasets import as_images
from tests.support.combining import Pictures, build, quiet
from tests.support.tiny import tiny_info

CPU = ForgetOptions(device="cpu")


def test_an_image_that_was_left_out_cannot_be_forgotten(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    artifact = build(tmp_path / "all", range(60), sums=KeptSums(noted), tolerance=0.35, batch_size=8)
    order = random_orders(as_images(Pictures(range(60))), tiny_info())[0]
    left_out, used = order[9], order[0]
    with pytest.raises(CombineError, match="never"):
        forget_images(
            artifact, Pictures([left_out]), tmp_path / "a", membership=noted, options=CPU, notify=quiet
        )
    said: list[str] = []
    made = forget_images(
        artifact, Pictures([used]), tmp_path / "b", membership=noted, options=CPU, notify=said.append
    )
    assert made.info.counts == (8, 9, 9) and made.info.tolerance is None
    assert any("was built to (35 % of the spread of a class) is not said" in one for one in said)


def test_a_merged_artifact_says_it_of_its_parts(tmp_path: Path) -> None:
    parts = [
        build(
            tmp_path / "a",
            range(60),
            sums=KeptSums(),
            tolerance=0.35,
            batch_size=8,
            info={"source": {"name": "x"}},
        ),
        build(tmp_path / "b", range(60, 90), sums=KeptSums(), batch_size=8, info={"source": {"name": "x"}}),
    ]
    said: list[str] = []
    merged = merge_artifacts(parts, tmp_path / "merged", notify=said.append)
    assert merged.info.tolerance is None and merged.info.counts == (19, 19, 19)
    assert [part.get("tolerance") for part in merged.info.source["parts"]] == [0.35, None]
    assert any("those that both may have used count twice" in one for one in said)
    assert any("is not said of the new artifact" in one for one in said)


def test_parts_of_other_sources_are_not_doubted(tmp_path: Path) -> None:
    parts = [
        build(
            tmp_path / "a",
            range(60),
            sums=KeptSums(),
            tolerance=0.35,
            batch_size=8,
            info={"source": {"name": "x"}},
        ),
        build(tmp_path / "b", range(60, 90), sums=KeptSums(), batch_size=8, info={"source": {"name": "y"}}),
    ]
    said: list[str] = []
    merge_artifacts(parts, tmp_path / "merged", notify=said.append)
    assert not any("twice" in one for one in said)
