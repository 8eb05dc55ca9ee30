"""Tiny protocols, and the classes of the images that tests train students on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.students.protocol import Protocol

CLASSES = ["ant", "bee", "cat"]


def protocol(**changes: Any) -> Protocol:
    values: dict[str, Any] = {
        "student": "convnet3",
        "student_args": {"width": 8},
        "image_size": 12,
        "channels": 1,
        "mean": [0.5],
        "std": [0.25],
        "epochs": 4,
        "batch_size": 4,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "weight_decay": 5e-4,
        "schedule": "step",
        "milestones": [0.5],
        "labels": "hard",
    }
    return Protocol(**{**values, **changes})


def student(real: Path, output: Path, **changes: Any) -> StudentSettings:
    values: dict[str, Any] = {
        "student": "convnet3",
        "student_args": {"width": 4},
        "image_size": 12,
        "channels": 3,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "epochs": 4,
        "batch_size": 4,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "schedule": "step",
        "milestones": [0.5],
        "labels": "hard",
        "dataset": str(real),
        "source": "random_real",
        "ipc": 2,
        "output": str(output),
        "minutes_between_checkpoints": 0.0,
    }
    return StudentSettings(**{**values, **changes})
