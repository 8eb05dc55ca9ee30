"""Private builds of tiny images, and what `computations` runs of privacy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import torch

from d3hr_datasets import Artifact, ArtifactInfo, InversionConfig
from d3hr_datasets.build import BuildSettings, ClassOptions, ModelOptions
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.privacy import PrivacySettings, membership_advantage
from tests.support.tiny import CLASSES, TinyImages, tiny_info

SETTINGS = BuildSettings((400,), num_inference_steps=10, image_size=14)
SPENDING = PrivacySettings(5.0, 1e-5)
LATENTS = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def class_list_options(folder: Path) -> dict[str, Any]:
    """Return options of a plan with a list of the tiny classes, on the CPU."""
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    classes = ClassOptions(class_list=str(folder / "classes.json"))
    return {"class_options": classes, "model_options": ModelOptions("cpu")}


def private_info(privacy: PrivacySettings = SPENDING, **changes: Any) -> ArtifactInfo:
    """Return the description of a tiny private artifact."""
    inversion = InversionConfig((400,), num_inference_steps=10)
    values = {"inversion": inversion, "counts": (), "privacy": privacy.mechanism(48, 1.0), **changes}
    return tiny_info(**values)


def build_private(
    model: LatentDiffusion, folder: Path, info: ArtifactInfo | None = None, source: Any = None, **options: Any
) -> Artifact:
    """Build in chunks of five images."""
    options = {"chunk_size": 5, "progress": False, "shrinkage": "auto", **options}
    work = options.pop("work", folder.with_name(f"{folder.name}.chunks"))
    return build_artifact(source or TinyImages(), model, folder, info or private_info(), work, **options)


def privacy(folder: Path, work: Path) -> Any:
    """Build a private artifact, and attack one, with noise that is the same each time."""
    shutil.copytree(folder / "model", work / "artifact" / "model")
    model = LatentDiffusion.from_pretrained(work / "artifact" / "model", device="cpu")
    with mock.patch("d3hr_datasets.privacy.release.SystemBits", lambda: Random(0)):
        built = build_private(model, work / "artifact")
    attacked = membership_advantage(LATENTS, built.info.privacy, source=Random(0))
    return [(built.folder / "statistics.safetensors").read_bytes(), built.info.to_dict(), vars(attacked)]
