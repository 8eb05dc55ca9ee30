"""What the plan on paper says of ImageNet-21K is what the recipe computes."""

from __future__ import annotations

from pathlib import Path

from recipes.evaluate.scale import IMAGE_SETS, plan

TEXT = " ".join((Path(__file__).parents[2] / "recipes" / "IMAGENET.md").read_text(encoding="utf-8").split())


def test_figures_of_imagenet_21k() -> None:
    small = plan(IMAGE_SETS["ImageNet-1K"], 1, 233.0)
    none, ten, fifty = (plan(IMAGE_SETS["ImageNet-21K"], modes, 233.0) for modes in (1, 10, 50))
    said = (
        f"{none['images'] / 1e6:.1f} million images are {none['evaluations_millions']:.0f} million "
        f"evaluations and {none['worker_hours']:.0f} H100-hours, eleven times as many"
    )
    assert said in TEXT and round(none["worker_hours"] / small["worker_hours"]) == 11
    assert f"They are {none['images_gigabytes'] / 1000:.1f} TB" in TEXT
    sizes = [f"{one['artifact_megabytes'] / 1000:.1f} GB with" for one in (ten, fifty)]
    assert f"of {none['artifact_megabytes']:.0f} MB without modes" in TEXT
    assert all(size in TEXT for size in sizes)
    centroids = [one["memory_of_centroids_gigabytes"] for one in (fifty, ten)]
    assert f"would take {centroids[0]:.0f} GB in each process, and of ten {centroids[1]:.1f} GB" in TEXT
