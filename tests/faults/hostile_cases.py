"""The cases of the campaign `hostile`, by kind and name."""

from __future__ import annotations

from pathlib import Path

from tests.faults.hostile import Case
from tests.faults.hostile_artifacts import artifacts, builds, models, texts
from tests.faults.hostile_hubs import hubs
from tests.faults.hostile_images import images, statistics
from tests.faults.hostile_places import places
from tests.support.tiny import save_tiny_artifact, tiny_pipeline


def prepare(work: Path) -> dict[str, dict[str, Case]]:
    """Make an artifact, a model and images to start from, and return the cases by kind."""
    save_tiny_artifact(work / "artifact", work / "chunks")
    tiny_pipeline().save_pretrained(work / "model")
    return {
        "artifacts": artifacts(work),
        "texts": texts(work),
        "models": models(work),
        "hubs": hubs(work),
        "images": images(),
        "statistics": statistics(),
        "builds": builds(work),
        "places": places(),
    }
