"""Forgetting of artifacts of every sort: models of prompts and of flow matching, and orders of images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import CURATION, EMBEDDINGS
from d3hr_datasets.artifact.units import UNIT
from d3hr_datasets.build import (
    BuildSettings,
    ClassOptions,
    KeptSums,
    ModelOptions,
    PromptOptions,
    plan_build,
)
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.combine import ForgetOptions, forget_images
from d3hr_datasets.errors import CombineError
from tests.support.combining import Pictures, build, picture, quiet
from tests.support.curated import add_order
from tests.support.tiny import tiny_info, tiny_model, tiny_pipeline
from tests.support.tiny_kinds import save_kind

CPU = ForgetOptions(device="cpu")
KINDS = {
    "sd-1": PromptOptions("a photo of a {name}"),
    "sd-1, its embeddings stored": PromptOptions("a photo of a {name}", store_embeddings=True),
    "pixart-sigma": PromptOptions("a photo of a {name}"),
    "dit-flow": PromptOptions(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_is_a_build_without_the_images(kind: str, image_folder: Path, tmp_path: Path) -> None:
    model = save_kind(kind.partition(",")[0], tmp_path / "model")

    def built(name: str, source: Path) -> Artifact:
        plan = plan_build(
            source,
            model,
            tmp_path / name,
            BuildSettings(num_inference_steps=4, num_modes=1, shrinkage="none"),
            class_options=ClassOptions(same_order=kind.startswith("dit")),
            prompt_options=KINDS[kind],
            model_options=ModelOptions("cpu"),
            sums=KeptSums(tmp_path / f"{name}.membership"),
        )
        return plan.run(progress=False)

    whole = built("whole", image_folder)
    gone, kept = tmp_path / "gone", tmp_path / "kept"
    shutil.copytree(image_folder, kept)
    for folder in sorted(path for path in kept.iterdir() if path.is_dir()):
        (gone / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:2]:
            file.rename(gone / folder.name / file.name)
    options: dict[str, Any] = {"membership": tmp_path / "whole.membership", "notify": quiet}
    left = forget_images(whole, gone, tmp_path / "left", options=CPU, **options)
    left.verify()
    assert (EMBEDDINGS in left.sha256) == kind.endswith("stored")
    assert left.info.prompts == whole.info.prompts
    found, expected, before = left.sums(), built("without", kept).sums(), whole.sums()
    assert torch.equal(found.count, expected.count)
    for time, sums in expected.sums.items():
        off = float((found.sums[time] - sums).abs().max()) * UNIT
        assert off < 1e-3 < float((before.sums[time] - sums).abs().max()) * UNIT


def test_an_order_of_curated_images_is_dropped_with_a_word(tmp_path: Path) -> None:
    noted, said = tmp_path / "membership", list[str]()
    build(tmp_path / "all", range(30), sums=KeptSums(noted))
    artifact = add_order(tmp_path / "all", decode=tiny_info().decode, mode_spread=None)
    assert CURATION in artifact.sha256
    left = forget_images(
        artifact, Pictures([0]), tmp_path / "left", membership=noted, options=CPU, notify=said.append
    )
    assert left.info.curation is None and CURATION not in left.sha256
    assert any("the order of curated images of" in line and "is left out" in line for line in said)


def test_the_precision_is_that_of_the_model_however_it_was_built(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    tiny_pipeline().save_pretrained(folder / "model")
    model = tiny_model()
    model.network.to(torch.bfloat16)
    made = build_artifact(Pictures(range(9)), model, folder, tiny_info(), tmp_path / "chunks", progress=False)
    assert made.info.source["torch_dtype"] == "bfloat16"
    (named_by,) = (tmp_path / "chunks").glob("*.json")  # what names chunks says nothing of it
    assert "bfloat16" not in named_by.read_text(encoding="utf-8")
    assert "torch_dtype" not in build(tmp_path / "full", range(9)).info.source


class Changing(Pictures):
    """Pictures that are others when they are read again."""

    def __init__(self, numbers: Any) -> None:
        super().__init__(numbers)
        self.reads = 0

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.reads += 1
        number = self.numbers[index] + (3 if self.reads > len(self.numbers) else 0)
        return picture(number), self.targets[index]


def test_images_that_change_meanwhile_are_not_taken_away(tmp_path: Path) -> None:
    noted = tmp_path / "membership"
    artifact = build(tmp_path / "all", range(30), sums=KeptSums(noted))
    with pytest.raises(CombineError, match="image 0 has changed since it was looked up in the membership"):
        forget_images(artifact, Changing([0]), tmp_path / "no", membership=noted, options=CPU, notify=quiet)
    assert not (tmp_path / "no").exists()


def test_many_copies_of_an_image_go_in_parts(tmp_path: Path) -> None:
    noted = tmp_path / "membership"
    artifact = build(tmp_path / "all", [*range(30), *[3] * 7], sums=KeptSums(noted))
    options = ForgetOptions(device="cpu", batch_size=2, cpu_offload=True)
    left = forget_images(
        artifact, Pictures([3]), tmp_path / "left", membership=noted, options=options, notify=quiet
    )
    without = build(tmp_path / "without", [k for k in range(30) if k != 3], sums=KeptSums())
    found, expected = left.sums(), without.sums()
    assert torch.equal(found.count, expected.count)
    for time, sums in expected.sums.items():
        assert float((found.sums[time] - sums).abs().max()) * UNIT < 1e-4


def test_a_folder_that_nobody_may_write_to_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, closed = tmp_path / "membership", tmp_path / "closed"
    artifact = build(tmp_path / "all", range(30), sums=KeptSums(noted))
    closed.mkdir()
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != closed and access(path, mode))
    monkeypatch.setattr("d3hr_datasets.combine.forget.load_model", None)
    with pytest.raises(CombineError, match=r"new_membership=.*closed/new' cannot be written"):
        forget_images(
            artifact,
            Pictures([0]),
            tmp_path / "no",
            membership=noted,
            new_membership=closed / "new",
            options=CPU,
            notify=quiet,
        )
