"""A build over an artifact that is there fails: what belongs to the artifact stays with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import MOMENTS
from d3hr_datasets.artifact.membership import read_membership
from d3hr_datasets.build import BuildSettings, ClassOptions, KeptSums, ModelOptions, plan_build
from d3hr_datasets.io import atomic
from tests.support.tiny import tiny_pipeline


def test_a_build_that_fails_in_the_end_leaves_the_membership_of_what_stays(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = KeptSums(tmp_path / "noted")
    tiny_pipeline().save_pretrained(tmp_path / "model")

    def built(images: Path) -> Artifact:
        plan = plan_build(
            images,
            tmp_path / "model",
            tmp_path / "out",
            BuildSettings((200,), num_inference_steps=10, image_size=14, num_modes=1),
            sums=noted,
            class_options=ClassOptions(same_order=True),
            model_options=ModelOptions("cpu"),
        )
        return plan.run(progress=False)

    before = built(image_folder)
    members = (tmp_path / "noted").read_bytes()
    more = Path(shutil.copytree(image_folder, tmp_path / "more"))
    image = next(more.rglob("*.png"))
    Image.open(image).rotate(90).save(image.with_name("one-more.png"))

    def full(first: Path, second: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "exchange", full)
        with pytest.raises(OSError, match="No space left"):
            built(more)
    assert Artifact.load(tmp_path / "out").sha256 == before.sha256
    assert (tmp_path / "noted").read_bytes() == members
    after = built(more)
    assert read_membership(tmp_path / "noted").moments == after.sha256[MOMENTS] != before.sha256[MOMENTS]
    assert not list(tmp_path.glob("noted.*.old"))
