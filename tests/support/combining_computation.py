"""Merging and forgetting, as `computations` runs them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.membership import KEY_MARK, read_membership
from d3hr_datasets.build import KeptSums
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.combine import ForgetOptions, forget_images, merge_artifacts
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.support.combining import Pictures
from tests.support.tiny import TIMESTEPS, tiny_info


def combining(folder: Path, work: Path) -> Any:
    """Merge artifacts of whole sums and of statistics, and forget images."""
    parts: list[Artifact] = []
    for number in range(2):
        one = work / f"part{number}"
        images = Pictures(range(12 * number, 12 * number + 12))
        shutil.copytree(folder / "model", one / "model")
        loaded = LatentDiffusion.from_pretrained(one / "model", device="cpu")
        info, chunks = tiny_info(num_modes=2), work / f"chunks{number}"
        sizes: dict[str, Any] = {"batch_size": 5, "progress": False, "shrinkage": "auto"}
        key = work / "key"
        key.write_text(f"{KEY_MARK}{'0' * 64}\n")
        sums = KeptSums(work / f"noted{number}", key)
        parts.append(build_artifact(images, loaded, one, info, chunks, **sizes, sums=sums))
    quiet: dict[str, Any] = {"notify": lambda _: None}
    merged = merge_artifacts(parts, work / "merged", num_modes=2, **quiet)
    for part in parts:
        gaussians, modes = {t: part.gaussians(t) for t in TIMESTEPS}, {t: part.modes(t) for t in TIMESTEPS}
        Artifact.save(part.folder, dataclasses.replace(part.info, shrinkage=()), gaussians, modes)
    rounded = merge_artifacts([one.folder for one in parts], work / "rounded", keep_modes=True, **quiet)
    shutil.copytree(folder / "model", work / "all" / "model")
    sums = KeptSums(work / "noted", key)
    again = build_artifact(
        Pictures(range(30)), loaded, work / "all", info, work / "chunks", **sizes, sums=sums
    )
    options = ForgetOptions(device="cpu")
    left = forget_images(
        again, Pictures([3, 5]), work / "left", membership=sums.paths[0], key=key, options=options, **quiet
    )
    found = [[one.gaussians(400), one.modes(-1)] for one in (merged, rounded, left)]
    return [*found, vars(merged.sums()), vars(left.sums()), read_membership(work / "left.membership")]
