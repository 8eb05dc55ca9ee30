"""An artifact of an earlier run, taken up only if it is what this run would build."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.artifact.privacy import Privacy
from d3hr_datasets.build import BuildPlan
from recipes.common.errors import RecipeError


def check_made(folder: Path, planned: BuildPlan, privacy: Privacy | None = None) -> None:
    """Check that an artifact is what a plan would build of images of the same name.

    Args:
        folder: The artifact.
        planned: The plan, without privacy.
        privacy: What is to be promised.

    Raises:
        RecipeError: It is of another promise, model, inversion or way to decode.
    """
    made = Artifact.load(folder)
    noted, others = made.info.privacy, []
    if noted is not None and privacy is not None:
        noted = dataclasses.replace(noted, batch_size=None, accountant=privacy.accountant)
    if noted != privacy:
        others.append("privacy")
    if made.info.inversion != planned.info.inversion:
        others.append("inversion")
    if made.info.decode != planned.info.decode:
        others.append("way to decode")
    if load_model(made, device="cpu").inversion_fingerprint != planned.diffusion.inversion_fingerprint:
        others.append("model")
    if others:
        raise RecipeError(
            f"{folder} is an artifact of another {' and '.join(others)}; give another --work, or move it away"
        )
