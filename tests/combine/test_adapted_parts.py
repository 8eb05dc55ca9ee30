"""Artifacts whose model has an adapter: merged where it is the same one, and forgotten of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Artifact
from d3hr_datasets.build import BuildSettings, ClassOptions, KeptSums, ModelOptions, plan_build
from d3hr_datasets.combine import ForgetOptions, forget_images, merge_artifacts
from d3hr_datasets.errors import CombineError
from tests.support.combining import Pictures, quiet
from tests.support.tiny import CLASSES, tiny_pipeline
from tests.support.tiny_adapters import save_tiny_adapter


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model and two adapters of it."""
    folder = tmp_path_factory.mktemp("adapted")
    tiny_pipeline().save_pretrained(folder / "model")
    save_tiny_adapter(folder / "model", folder / "one")
    shutil.copytree(folder / "one", folder / "other")
    save_tiny_adapter(folder / "model", folder / "other", num_classes=3)
    return folder


def _build(scene: Path, output: Path, numbers: range, adapter: str = "one", **how: Any) -> Artifact:
    names = output.with_name("classes.json")
    names.write_text(json.dumps(CLASSES))
    plan = plan_build(
        Pictures(numbers),
        scene / "model",
        output,
        BuildSettings((400,), image_size=14, num_modes=1),
        class_options=ClassOptions(str(names), same_order=True),
        model_options=ModelOptions(adapter=scene / adapter, **how),
        sums=KeptSums(output.with_name(f"{output.name}.membership")),
    )
    return plan.run(progress=False)


def test_the_same_adapter_goes_along_and_another_is_refused(scene: Path, tmp_path: Path) -> None:
    parts = [_build(scene, tmp_path / f"p{n}", range(15 * n, 15 * n + 15)) for n in range(2)]
    merged = merge_artifacts(parts, tmp_path / "merged", notify=quiet)
    merged.verify()
    left = forget_images(
        parts[0],
        Pictures([0]),
        tmp_path / "left",
        membership=tmp_path / "p0.membership",
        options=ForgetOptions(device="cpu"),
        notify=quiet,
    )
    for made in (merged, left):
        files = {name for name in made.sha256 if name.startswith("adapter/")}
        assert len(files) >= 3 and {made.sha256[name] for name in files} == {
            parts[0].sha256[name] for name in files
        }
    third = _build(scene, tmp_path / "third", range(30, 45), "other")
    with pytest.raises(
        CombineError, match=r"the adapter is 'inside, SHA-256 \w+' in .* and 'inside, SHA-256 \w+'"
    ):
        merge_artifacts([parts[0], third], tmp_path / "no")


def test_a_build_of_another_precision_is_noted_and_refused(scene: Path, tmp_path: Path) -> None:
    whole = _build(scene, tmp_path / "whole", range(15))
    half = _build(scene, tmp_path / "half", range(15, 30), torch_dtype=torch.bfloat16)
    assert "torch_dtype" not in whole.info.source and half.info.source["torch_dtype"] == "bfloat16"
    with pytest.raises(CombineError, match=r"the precision of the build is 'float32' in .* and 'bfloat16'"):
        merge_artifacts([whole, half], tmp_path / "no")
    again = _build(scene, tmp_path / "again", range(30, 45), torch_dtype=torch.bfloat16)
    merged = merge_artifacts([half, again], tmp_path / "merged", notify=quiet)
    assert merged.info.source["torch_dtype"] == "bfloat16"
