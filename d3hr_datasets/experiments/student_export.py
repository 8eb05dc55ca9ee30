"""A trained student -> a folder that timm opens, with a card."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.io.atomic import replaced_folder
from d3hr_datasets.io.extras import needs_extra

with needs_extra("train", "students are networks of timm's registry"):
    from timm.models import save_for_hf
from d3hr_datasets.experiments.student_settings import StudentSettings

CARD = """---
library_name: timm
license: apache-2.0
tags: [image-classification, timm]
---

# {student} trained on {dataset}

Top-1 {top1:.2f} % on the {tested_on} ({images} images) after the last of {epochs} epochs, seed {seed}, by
`d3hr train student` of d3hr-datasets. Weights were rounded to half precision after that; classes are in
`config.json`.

    import timm
    import d3hr_datasets.students.models  # registers architectures that timm does not have
    model = timm.create_model("local-dir:FOLDER", pretrained=True)
"""


def export_student(
    model: torch.nn.Module, settings: StudentSettings, classes: list[str], result: dict[str, Any]
) -> None:
    """Write a student as a model that `timm.create_model("local-dir:FOLDER", pretrained=True)` opens."""
    size = [settings.channels, settings.image_size, settings.image_size]
    data = {
        "input_size": tuple(size),
        "mean": tuple(settings.mean),
        "std": tuple(settings.std),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    }
    with replaced_folder(Path(settings.export)) as folder:
        for name in ("config.json", "model.safetensors", "README.md"):
            (folder / name).unlink(missing_ok=True)
        save_for_hf(
            model.half(), str(folder), {"label_names": classes}, safe_serialization=True, data_config=data
        )
        (folder / "README.md").write_text(_card(settings, result), encoding="utf-8")


def is_exported(settings: StudentSettings, result: dict[str, Any]) -> bool:
    """Say whether the export that settings name is that of this student, and whole."""
    folder = Path(settings.export)
    card, weights = folder / "README.md", folder / "model.safetensors"
    return (
        weights.is_file() and card.is_file() and card.read_text(encoding="utf-8") == _card(settings, result)
    )


def _card(settings: StudentSettings, result: dict[str, Any]) -> str:
    values = {**dataclasses.asdict(settings), **result, "images": result["num_test_images"]}
    return CARD.format_map(values)
