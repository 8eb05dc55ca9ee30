"""Curating a tiny artifact in seconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from d3hr_datasets import Artifact
from d3hr_datasets.curation import CurationSettings, curate_artifact

SETTINGS = CurationSettings(num_candidates=16, num_kept=8)


def curate(artifact: Artifact, teacher: Any, output: Path, **changes: Any) -> Artifact:
    """Curate eight of sixteen candidates on the CPU, with other settings or `images`."""
    images = changes.pop("images", None)
    settings = dataclasses.replace(SETTINGS, **changes)
    return curate_artifact(artifact, output, teacher, settings, images=images, device="cpu", progress=False)
